"""Jobs cannot read the provider's environment, which may hold Temporal's API key."""

from __future__ import annotations

import contextlib
import shlex
from typing import Any

import psutil
import pytest

from tests.builders import shell_job
from tests.provider.provider_process import Served, sandboxed
from tests.provider.test_shells import open_shell, running, terminal
from tests.waiting import eventually

pytestmark = sandboxed

SECRET = "a-secret-of-the-provider"
SCAN = """
import os, sys
secret, once = sys.argv[1].encode(), sys.argv[2:] == ["once"]
seen = set()
print("scanning", flush=True)
while not os.path.exists("/work/enough"):
    for number in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{number}/environ", "rb") as file:
                if secret in file.read():
                    print("found in", number, flush=True)
            seen.add(number)
        except OSError:
            pass
    if once:
        break
print("saw the first" if "1" in seen else "saw nothing", flush=True)
"""


def scan(*how: str) -> str:
    """Return a script that reads the environments of all visible processes, repeatedly or once."""
    return shlex.join(["python3", "-c", SCAN, SECRET, *how])


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a secret into this process, which serves the provider."""
    monkeypatch.setenv("TEMPORAL_API_KEY", SECRET)


async def test_no_process_visible_to_a_job_has_the_environment(
    provider: Served, secret: None
) -> None:
    job = shell_job(scan("once"))
    await provider.call("", job)
    await provider.end_of(job)
    output = provider.output(job, "stdout-0.txt")
    assert "found" not in output
    assert "saw the first" in output


async def test_a_terminal_does_not_leak_the_environment(provider: Served, secret: None) -> None:
    job = await running(provider, scan())
    await eventually(lambda: "scanning" in provider.output(job, "stdout-0.txt"))
    for _ in range(10):
        async with terminal((await open_shell(provider, job))["url"]) as screen:
            await screen.type("echo in''side\n")
            await screen.read_until("inside")
    async with terminal((await open_shell(provider, job))["url"]) as screen:
        await screen.type("touch /work/enough; exit\n")
        await screen.read_to_the_end()
    await provider.end_of(job)
    output = provider.output(job, "stdout-0.txt")
    assert "found" not in output
    assert "saw the first" in output


async def test_the_launcher_does_not_keep_the_environment(provider: Served, secret: None) -> None:
    job = await running(provider)
    assert with_secret(provider, job) == []


def with_secret(served: Served, job: dict[str, Any]) -> list[list[str]]:
    """Return the processes of a job that have the provider's environment."""
    found = []
    for process in served.processes_of(job):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.environ().get("TEMPORAL_API_KEY") == SECRET:
                found.append(process.cmdline())
    return found
