"""Sessions from the command line to what is seen: desktops, terminals, web applications, public links, and who gets in.

Everything starts with a job that was submitted to a whole stack, and goes by the address that its user is given.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from tests.conditions import eventually
from tests.end_to_end.chromium import Chromium, chromium, need
from tests.end_to_end.desktops import DESKTOP, NEEDED, PASSWORD, is_connected, type_until_green
from tests.end_to_end.running_stack import Stack
from tests.provider.web_jobs import PACKAGES, PYTHON, USUAL_FOLDERS, free_port

PORT = {name: free_port() for name in ("desktop", "speeches")}
"""Of their own, since jobs may share this machine's network."""
SPEECHES = """
import sqlite3
with sqlite3.connect("speeches.db") as connection:
    connection.execute("create table speeches (id integer primary key, speaker text)")
    connection.executemany("insert into speeches (speaker) values (?)", [("Ada",), ("Grace",)])
"""
DATASETTE = f"""
"$0" -c '{SPEECHES}'
exec "$0" -m datasette serve speeches.db --host 127.0.0.1 --port {PORT["speeches"]} \\
  --setting base_url /ucloud/local/sessions/web/$UCLOUD_JOB_ID/$UCLOUD_RANK/
"""


def application(name: str, kind: str, *invocation: str, **more: Any) -> dict[str, Any]:
    """A document for the catalog."""
    common = {"title": name, "version": "1", "authors": ["UCloud"], "description": name, "outputFileGlobs": []}
    environment = {"PYTHONPATH": f"/work/{PACKAGES.name}", "PYTHONDONTWRITEBYTECODE": "1"}
    tool = {"name": "system", "version": "1"}
    fixed = {"application": "v1", "name": name, "tool": tool, "applicationType": kind, "environment": environment}
    return fixed | common | {"invocation": list(invocation)} | more


CATALOG = [
    application(
        "desktop",
        "VNC",
        *("sh", "-c", DESKTOP.format(port=PORT["desktop"], display=PORT["desktop"])),
        vnc={"port": PORT["desktop"], "password": PASSWORD},
    ),
    application("speeches", "WEB", "sh", "-c", DATASETTE, PYTHON, web={"port": PORT["speeches"]}),
    {"drive": "v1", "id": "python", "provider": "local", "public": ["READ"]},
]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose jobs can use this Python and its packages; it ends with what runs in it."""
    folder = tmp_path_factory.mktemp("sessions")
    system = [] if PYTHON.startswith(USUAL_FOLDERS) else [sys.base_prefix]
    settings = folder / "provider.toml"
    settings.write_text(
        f"system_folders = {json.dumps(system)}\ndrives = {{python = {json.dumps(str(PACKAGES.parent))}}}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UCLOUD_PROVIDER_CONFIG", str(settings))
        running = Stack(folder, "".join(f"\n---\n{json.dumps(document)}" for document in CATALOG))
        try:
            yield running
        finally:
            running.stop()


@pytest.fixture(scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chromium]:
    async with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def running(stack: Stack, application: str) -> str:
    """A job of that application, which runs."""
    packages = {"type": "file", "path": f"/python/{PACKAGES.name}", "readOnly": True}
    file = stack.job_file(application, "1")
    document = json.loads(file.read_text()) | {"resources": [packages], "allowDuplicateJob": True}
    file.write_text(json.dumps(document))
    job_id = str(stack.json("submit", str(file))["id"])
    stack.reached(job_id, "RUNNING")
    return job_id


def ended(stack: Stack, job_id: str) -> None:
    assert stack.run("cancel", job_id).returncode == 0
    stack.reached(job_id, "SUCCESS")


def address(stack: Stack, job_id: str, kind: str) -> str:
    """What `open` prints."""
    done = stack.run("open", job_id, "--type", kind)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.timeout(180)
async def test_a_desktop_and_a_terminal_of_one_job_are_seen_and_typed_into(stack: Stack, browser: Chromium) -> None:
    need(*NEEDED)
    job_id = running(stack, "desktop")
    await eventually(lambda: is_connected(browser, address(stack, job_id, "vnc")), 90)
    assert await browser.do(lambda: browser.driver.title) == "Speeches"
    assert "token" not in await browser.do(lambda: browser.driver.current_url)
    await type_until_green(browser, "Ada")
    await browser.picture("stack-desktop")
    await browser.go(stack.json("open", job_id, "--type", "shell")["page"])
    await browser.type("echo $((6*7)) in $UCLOUD_JOB_ID: $(cat speaker)\n", ".xterm-helper-textarea")

    async def answers() -> bool:
        shown = (await browser.text(".xterm-rows")).replace("\xa0", " ").replace("\n", "")
        return f"42 in {job_id}: Ada" in shown

    await eventually(answers, 60)
    await browser.picture("stack-terminal")
    ended(stack, job_id)
    await eventually(lambda: browser.text("#message"), 30)


@pytest.mark.timeout(180)
async def test_a_web_application_opens_by_its_address_once(stack: Stack, browser: Chromium) -> None:
    job_id = running(stack, "speeches")
    opened = address(stack, job_id, "web")
    await browser.go(opened)

    async def shows(text: str) -> bool:
        return text in await browser.text()

    await eventually(lambda: shows("2 rows in 1 table"), 90)  # it asks again by itself until the application answers
    assert "token" not in await browser.do(lambda: browser.driver.current_url)
    await browser.go(f"{stack.ready['provider']}/ucloud/local/sessions/web/{job_id}/0/speeches/speeches?speaker=Grace")
    await eventually(lambda: shows('1 row where speaker = "Grace"'), 30)
    await browser.picture("stack-web-application")
    async with httpx.AsyncClient(trust_env=False) as another:
        assert (await another.get(opened)).status_code == 401
    ended(stack, job_id)
