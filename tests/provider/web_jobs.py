"""Jobs that serve web pages or a desktop, with this environment's Python packages as inputs."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.builders import shell_job
from tests.provider.provider_process import Reports, Served, serving
from tests.waiting import eventually
from ucloud_orchestrator.models.session import (
    OPEN_SESSION,
    OpenSession,
    challenge_of,
    with_verifier,
)

PACKAGES = Path(sysconfig.get_path("purelib"))
PYTHON = os.path.realpath(sys.executable)
SYSTEM_FOLDERS = ("/usr/", "/opt/")
"""Folders that every job can read."""
_started: dict[str, list[dict[str, Any]]] = {}


@asynccontextmanager
async def serving_web_jobs(folder: Path, **settings: Any) -> AsyncIterator[Served]:
    """Serve a provider whose jobs can use this Python and its packages; end its jobs at last."""
    served = Served(folder, Reports())
    shutil.copy(Path(__file__).with_name("web_application.py"), folder / "drive")
    is_system_python = PYTHON.startswith(SYSTEM_FOLDERS)
    more = {
        "drives": {"data": folder / "drive", "python": PACKAGES.parent},
        "system_folders": [] if is_system_python else [Path(sys.base_prefix)],
    }
    served.settings = served.settings.model_copy(update=more | settings)
    async with serving(served):
        try:
            yield served
        finally:
            alive = [
                job
                for job in _started.pop(served.url, [])
                if served.reports.ended(job["id"]) is None
            ]
            await served.call("terminate", *alive)
            for job in alive:
                await served.end_of(job)


def free_port() -> int:
    """Return a free port: jobs may share this machine's network."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


def python_job(command: str, replicas: int = 1, **application: Any) -> dict[str, Any]:
    """Build a job whose script has `$PYTHON` with these packages, and `web_application.py`."""
    files = {
        "input": {"type": "file", "path": f"/python/{PACKAGES.name}", "readOnly": True},
        "more": {"type": "file", "path": "/data/web_application.py", "readOnly": True},
    }
    script = (
        f"export PYTHON={PYTHON} PYTHONPATH=/work/{PACKAGES.name} PYTHONDONTWRITEBYTECODE=1; "
        f"{command}"
    )
    job = shell_job(script, replicas, parameters=files)
    job["status"]["resolvedApplication"]["application"] |= application
    return job


def web_job(replicas: int = 1, **changes: Any) -> dict[str, Any]:
    """Build a job that serves `web_application.py`."""
    port = free_port()
    command = f"exec $PYTHON web_application.py 127.0.0.1 {port}"
    return python_job(command, replicas, applicationType="WEB", web={"port": port}) | changes


async def open_session(
    provider: Served, job: dict[str, Any], session_type: str, rank: int = 0
) -> dict[str, Any]:
    """Open a session."""
    item = {"job": job, "rank": rank, "sessionType": session_type}
    answer = await provider.call("interactiveSession", item)
    assert answer.status_code == 200, answer.text
    (session,) = answer.json()["responses"]
    return dict(session)


async def open_session_with_challenge(
    provider: Served, job: dict[str, Any], session_type: str, rank: int = 0
) -> OpenSession:
    """Open a session as `JobClient` does: its addresses contain the verifier of a challenge."""
    verifier = secrets.token_urlsafe(32)
    challenge = challenge_of(verifier)
    item = {"job": job, "rank": rank, "sessionType": session_type, "challenge": challenge}
    answer = await provider.call("interactiveSession", item)
    assert answer.status_code == 200, answer.text
    assert verifier not in answer.text
    return with_verifier(OPEN_SESSION.validate_python(answer.json()["responses"][0]), verifier)


async def start(provider: Served, job: dict[str, Any]) -> None:
    """Start the job, and wait until it runs."""
    answer = await provider.call("", job)
    assert answer.status_code == 200, answer.text
    _started.setdefault(provider.url, []).append(job)
    await eventually(lambda: provider.still_runs(job), 40)


class Browser(httpx.AsyncClient):
    """A client with cookies; `application_url` is the address of the opened application."""

    def __init__(self) -> None:
        super().__init__(follow_redirects=False, timeout=30, trust_env=False)
        self.application_url = ""

    async def open(self, address: str) -> httpx.Response:
        """Open the address of a session, and wait until the application answers."""
        answer = await self.get(address)
        if answer.status_code == 303:
            self.application_url = str(httpx.URL(address).join(answer.headers["location"]))

            async def responds() -> bool:
                return (await self.get(self.application_url)).status_code != 503

            await eventually(responds, 60)
        return answer
