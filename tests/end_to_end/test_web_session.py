"""A web application from the command line to its pages, through the whole stack."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.running_stack import Stack, eventually


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path)
    try:
        yield stack
    finally:
        stack.stop()


@pytest.mark.timeout(180)
def test_the_address_that_open_prints_leads_to_the_pages_once(stack: Stack) -> None:
    job_id = stack.submit("web-files.yaml")
    eventually(lambda: stack.json("show", job_id)["status"]["state"] == "RUNNING")
    done = stack.run("open", job_id, "--type", "web")
    assert done.returncode == 0, done.stderr
    address = done.stdout.strip()

    def page() -> bool:
        return "Directory listing" in browser.get(place).text

    with httpx.Client(trust_env=False) as browser:
        entered = browser.get(address)
        assert entered.status_code == 303
        place = httpx.URL(address).join(entered.headers["location"])
        eventually(page)
    assert httpx.get(address, trust_env=False).status_code == 401
    refused = stack.run("open", job_id, "--type", "vnc")
    assert refused.returncode != 0
    assert "no interface of type VNC" in refused.stderr
    stack.run("cancel", job_id)
    eventually(lambda: stack.json("show", job_id)["status"]["state"] == "SUCCESS")
