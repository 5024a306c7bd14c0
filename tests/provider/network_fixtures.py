"""A provider whose jobs have networks of their own, and jobs that listen and connect."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.builders import shell_job
from tests.provider.provider_process import Reports, Served, serving
from tests.waiting import eventually
from ucloud_orchestrator.provider.network import namespaces

separate = pytest.mark.skipif(
    namespaces.unavailable_reason() is not None and os.environ.get("CI") != "true",
    reason=f"no networks of their own: {namespaces.unavailable_reason()}",
)
"""Marks tests that need networks of jobs; CI must have them."""
PYTHON = Path(sys.executable).resolve()

LISTEN = """
import os, socket
server = socket.create_server(("0.0.0.0", 5000))
print("listening", flush=True)
while True:
    connection, _ = server.accept()
    connection.sendall(f"{os.environ['UCLOUD_JOB_ID']} {os.environ['UCLOUD_RANK']}".encode())
    connection.close()
"""
CONNECT = """
import socket, sys
def answer(target):
    host, port = target.rsplit(":", 1)
    # A program that binds to an interface needs no route.
    for interface in ("", *(name for _, name in socket.if_nameindex())):
        try:
            with socket.socket() as connection:
                connection.settimeout(1)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
                connection.connect((host, int(port)))
                return connection.makefile().read() or "closed"
        except OSError:
            pass
    return "refused"
for target in sys.argv[1:]:
    print(target, answer(target), flush=True)
"""


def listening(replicas: int = 1, **changes: Any) -> dict[str, Any]:
    return shell_job(f"{PYTHON} -c {shlex.quote(LISTEN)}", replicas, **changes)


def connecting(
    *targets: str, replicas: int = 1, before: str = "", **changes: Any
) -> dict[str, Any]:
    return shell_job(
        f"{before}{PYTHON} -c {shlex.quote(CONNECT)} {' '.join(targets)}", replicas, **changes
    )


def peer(hostname: str, job: dict[str, Any]) -> dict[str, Any]:
    return {"type": "peer", "hostname": hostname, "jobId": job["id"]}


def with_python(served: Served, **changes: Any) -> Served:
    served.settings = served.settings.model_copy(
        update={"system_folders": [PYTHON.parents[1]], **changes}
    )
    return served


@pytest.fixture
async def networked(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(with_python(Served(tmp_path, Reports()))) as served:
        yield served
        await stop_all(served)


async def stop_all(served: Served) -> None:
    ids = [entry.name for entry in jobs_folder(served).iterdir()]
    await served.call(
        "terminate", *({"id": name} | shell_job("true") | {"id": name} for name in ids)
    )
    await eventually(lambda: left_over(served) == [])


def jobs_folder(served: Served) -> Path:
    return served.folder / "provider" / "jobs"


def left_over(served: Served) -> list[str]:
    """Return all folders and processes of the provider's jobs."""
    found = [str(entry) for entry in jobs_folder(served).iterdir()]
    return found + [command for command in processes() if str(jobs_folder(served)) in command]


def address_of(served: Served, job: dict[str, Any], rank: int = 0) -> str:
    holder = namespaces.find(jobs_folder(served) / job["id"] / "network" / str(rank))
    assert holder is not None
    return namespaces.address(holder)


def held_by(served: Served) -> list[tuple[Path, psutil.Process]]:
    return list(namespaces.holders(jobs_folder(served)))


async def listen(served: Served, *jobs: dict[str, Any]) -> None:
    """Start jobs that listen, and wait until they do."""
    await served.call("", *jobs)
    for job in jobs:
        for rank in range(job["specification"]["replicas"]):
            await eventually(
                lambda job=job, rank=rank: "listening" in written(served, job, rank), 40
            )  # type: ignore[misc]


def written(served: Served, job: dict[str, Any], rank: int) -> str:
    try:
        return served.output(job, f"stdout-{rank}.txt")
    except FileNotFoundError:
        return ""


async def answers(served: Served, job: dict[str, Any], rank: int = 0) -> dict[str, str]:
    """Return the replies to a job that connects, by target."""
    end = await eventually(lambda: served.reports.ended(job["id"]), 60)
    assert end is not None
    assert end.status == "The job has finished with exit code 0." or "rank" in (end.status or ""), (
        end.status
    )
    lines = served.output(job, f"stdout-{rank}.txt").splitlines()
    return dict(line.split(" ", 1) for line in lines)


def processes() -> list[str]:
    return [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
