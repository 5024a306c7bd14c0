"""Jobs that serve web pages or a desktop, with the Python packages of these tests as input
files.
"""

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
USUAL_FOLDERS = ("/usr/", "/opt/")
"""What every job can read anyway."""
_started: dict[str, list[dict[str, Any]]] = {}


@asynccontextmanager
async def serving_web_jobs(folder: Path, **settings: Any) -> AsyncIterator[Served]:
    """A provider whose jobs can use this Python and its packages; those that `start` started are
    ended at last.
    """
    served = Served(folder, Reports())
    shutil.copy(Path(__file__).with_name("web_application.py"), folder / "drive")
    is_usual = PYTHON.startswith(USUAL_FOLDERS)
    more = {
        "drives": {"data": folder / "drive", "python": PACKAGES.parent},
        "system_folders": [] if is_usual else [Path(sys.base_prefix)],
    }
    served.settings = served.settings.model_copy(update=more | settings)
    async with serving(served):
        try:
            yield served
        finally:
            left = [
                job
                for job in _started.pop(served.url, [])
                if served.reports.ended(job["id"]) is None
            ]
            await served.call("terminate", *left)
            for job in left:
                await served.end_of(job)


def free_port() -> int:
    """A port that nobody has now; jobs may share this machine's."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port


def python_job(command: str, replicas: int = 1, **application: Any) -> dict[str, Any]:
    """A job whose script has `$PYTHON`, with this environment's packages, and
    `web_application.py`.
    """
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
    """A job that serves `web_application.py`."""
    port = free_port()
    command = f"exec $PYTHON web_application.py 127.0.0.1 {port}"
    return python_job(command, replicas, applicationType="WEB", web={"port": port}) | changes


async def opened(
    provider: Served, job: dict[str, Any], session_type: str, rank: int = 0
) -> dict[str, Any]:
    """A new session."""
    item = {"job": job, "rank": rank, "sessionType": session_type}
    answer = await provider.call("interactiveSession", item)
    assert answer.status_code == 200, answer.text
    (session,) = answer.json()["responses"]
    return dict(session)


async def opened_with_proof(
    provider: Served, job: dict[str, Any], session_type: str, rank: int = 0
) -> OpenSession:
    """A new session as `JobClient` asks for it: its addresses open nothing without the secret,
    which is in them.
    """
    verifier = secrets.token_urlsafe(32)
    challenge = challenge_of(verifier)
    item = {"job": job, "rank": rank, "sessionType": session_type, "challenge": challenge}
    answer = await provider.call("interactiveSession", item)
    assert answer.status_code == 200, answer.text
    assert verifier not in answer.text
    return with_verifier(OPEN_SESSION.validate_python(answer.json()["responses"][0]), verifier)


async def start(provider: Served, job: dict[str, Any]) -> None:
    """Start the job, and wait until sessions can be had."""
    answer = await provider.call("", job)
    assert answer.status_code == 200, answer.text
    _started.setdefault(provider.url, []).append(job)
    await eventually(lambda: provider.still_runs(job), 40)


class Browser(httpx.AsyncClient):
    """A client with cookies that comes in by a session's address; `place` is where its pages
    are.
    """

    def __init__(self) -> None:
        super().__init__(follow_redirects=False, timeout=30, trust_env=False)
        self.place = ""

    async def enter(self, address: str) -> httpx.Response:
        """Open the address of a session, and wait until the application answers."""
        answer = await self.get(address)
        if answer.status_code == 303:
            self.place = str(httpx.URL(address).join(answer.headers["location"]))

            async def answers() -> bool:
                return (await self.get(self.place)).status_code != 503

            await eventually(answers, 60)
        return answer
