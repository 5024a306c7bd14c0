"""What a job never sees: the provider's own environment, in which Temporal's API key may stand."""

from __future__ import annotations

import contextlib
import shlex
from typing import Any

import psutil
import pytest

from tests.builders import shell_job
from tests.provider.provider_process import Served, sandboxed
from tests.provider.test_shells import opened, running, terminal
from tests.waiting import eventually

pytestmark = sandboxed

SECRET = "a-secret-of-the-provider"
LOOK = """
import os, sys
secret, once = sys.argv[1].encode(), sys.argv[2:] == ["once"]
seen = set()
print("looks", flush=True)
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


def looking(*how: str) -> str:
    """A script that reads the environments of all processes that it sees, again and again or
    once.
    """
    return shlex.join(["python3", "-c", LOOK, SECRET, *how])


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider is this process."""
    monkeypatch.setenv("TEMPORAL_API_KEY", SECRET)


async def test_no_process_that_a_job_sees_has_the_providers_environment(
    provider: Served, secret: None
) -> None:
    job = shell_job(looking("once"))
    await provider.call("", job)
    await provider.end_of(job)
    said = provider.output(job, "stdout-0.txt")
    assert "found" not in said
    assert "saw the first" in said


async def test_what_opens_a_terminal_does_not_bring_the_providers_environment(
    provider: Served, secret: None
) -> None:
    job = await running(provider, looking())
    await eventually(lambda: "looks" in provider.output(job, "stdout-0.txt"))
    for _ in range(10):
        async with terminal((await opened(provider, job))["url"]) as screen:
            await screen.type("echo in''side\n")
            await screen.read_until("inside")
    async with terminal((await opened(provider, job))["url"]) as screen:
        await screen.type("touch /work/enough; exit\n")
        await screen.read_to_the_end()
    await provider.end_of(job)
    said = provider.output(job, "stdout-0.txt")
    assert "found" not in said
    assert "saw the first" in said


async def test_what_starts_a_job_does_not_keep_the_providers_environment(
    provider: Served, secret: None
) -> None:
    job = await running(provider)
    assert with_secret(provider, job) == []


def with_secret(served: Served, job: dict[str, Any]) -> list[list[str]]:
    """The processes of a job, inside or not, that have the provider's environment."""
    found = []
    for process in served.processes_of(job):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.environ().get("TEMPORAL_API_KEY") == SECRET:
                found.append(process.cmdline())
    return found
