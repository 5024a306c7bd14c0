"""A provider in this process or as one of its own, and a receiver of its reports."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import jwt
import psutil
import pytest
import uvicorn

from client import JobClosed
from tests.waiting import eventually
from ucloud_orchestrator.models import JobUpdate
from ucloud_orchestrator.models.provider_api import Charge, ChargeAnswer, ChargeId
from ucloud_orchestrator.provider.api.server import create_server
from ucloud_orchestrator.provider.sandbox import bubblewrap
from ucloud_orchestrator.provider.settings import ProviderSettings
from ucloud_orchestrator.setup import make_keys

sandboxed = pytest.mark.skipif(
    not bubblewrap.is_available() and os.environ.get("CI") != "true",
    reason="bubblewrap does not work on this machine",
)
"""What only a sandbox can show; CI must have one."""
STOP_TIMEOUT = 60.0
"""Seconds that a provider may take to end; it breaks off after five what its clients have under
way.
"""


class Reports:
    """Accepts reports, unless `is_down` or `closed`."""

    def __init__(self) -> None:
        self.updates: dict[str, list[JobUpdate]] = {}
        self.charges: dict[str, list[Charge]] = {}
        self.is_down = False
        self.is_broke = False
        self.closed: set[str] = set()
        self.jobs: set[str] = set()
        self.unlisted: set[str] = set()
        self.asked: list[str] = []

    async def update(self, job_id: str, updates: Sequence[JobUpdate]) -> None:
        if self.is_down:
            raise ConnectionError("down")
        if job_id in self.closed:
            raise JobClosed("closed")
        self.updates.setdefault(job_id, []).extend(updates)

    async def charge(self, job_id: str, charges: Sequence[Charge]) -> ChargeAnswer:
        if self.is_down:
            raise ConnectionError("down")
        self.charges.setdefault(job_id, []).extend(charges)
        lacking = [ChargeId(id=charge.charge_id) for charge in charges] if self.is_broke else []
        return ChargeAnswer(insufficient_funds=lacking, duplicate_charges=[])

    async def browse_open_jobs(self) -> AsyncIterator[str]:
        """Every job, but those that are closed, and those that the list does not have yet."""
        if self.is_down:
            raise ConnectionError("down")
        for job_id in self.jobs - self.closed - self.unlisted:
            yield job_id

    async def is_open(self, job_id: str) -> bool:
        self.asked.append(job_id)
        return job_id in self.jobs - self.closed

    def ended(self, job_id: str) -> JobUpdate | None:
        return next(
            (
                update
                for update in self.updates.get(job_id, [])
                if update.state and update.state.is_terminal
            ),
            None,
        )


class Served:
    """A provider that is served, and how to speak to it."""

    def __init__(self, folder: Path, reports: Reports) -> None:
        self.folder = folder
        self.reports = reports
        self.url = ""
        make_keys(folder / "keys", "local")
        (folder / "drive").mkdir(exist_ok=True)
        self.settings = ProviderSettings(
            data_dir=folder / "provider",
            public_key_file=folder / "keys" / "local.public.pem",
            drives={"data": folder / "drive"},
        )

    def token(self, algorithm: str = "RS256", key: Any = None, **changes: Any) -> str:
        now = int(time.time())
        claims = {
            "iss": "cloud.sdu.dk",
            "sub": "_UCloud",
            "role": "SERVICE",
            "iat": now,
            "exp": now + 60,
        } | changes
        claims = {name: value for name, value in claims.items() if value is not None}
        key = (self.folder / "keys" / "local.private.pem").read_text() if key is None else key
        return jwt.encode(claims, key, algorithm=algorithm)

    async def call(self, call: str, *items: Any, token: str | None = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token() if token is None else token}"}
        # Without certificates, which cost each client a megabyte and are not used on the loopback.
        base = f"{self.url}/ucloud/local/jobs"
        async with httpx.AsyncClient(
            base_url=base, headers=headers, verify=False, timeout=60
        ) as client:
            if call.startswith("retrieve"):
                return await client.get(f"/{call}")
            return await client.post(f"/{call}", json={"items": list(items)})

    async def end_of(self, job: dict[str, Any]) -> JobUpdate:
        update = await eventually(lambda: self.reports.ended(job["id"]))
        assert update is not None
        return update

    async def still_runs(self, job: dict[str, Any]) -> bool:
        """Whether the provider opens sessions of the job."""
        item = {"job": job, "rank": 0, "sessionType": "SHELL"}
        return (await self.call("interactiveSession", item)).status_code == 200

    def output(self, job: dict[str, Any], name: str) -> str:
        return (
            self.folder / "provider" / "drives" / "home" / "Jobs" / job["id"] / name
        ).read_text()

    def wrapper_of(self, job: dict[str, Any], rank: int = 0) -> int | None:
        """The process id of a replica's wrapper, once it has one."""
        with contextlib.suppress(OSError):
            return int(
                (
                    self.folder / "provider" / "jobs" / job["id"] / f"replica-{rank}" / "pid"
                ).read_text()
            )
        return None

    def processes_of(self, job: dict[str, Any]) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter(["cmdline"]):
            if any(job["id"] in word for word in process.info["cmdline"] or ()):
                found.append(process)
        return found


class ServedApart:
    """The provider as a process of its own, which can be killed. Its reports are not delivered."""

    def __init__(self, served: Served) -> None:
        settings = served.settings
        values = {
            "DATA_DIR": str(settings.data_dir),
            "PUBLIC_KEY_FILE": str(settings.public_key_file),
            "DRIVES": json.dumps({name: str(folder) for name, folder in settings.drives.items()}),
            "EXECUTORS": json.dumps([entry.model_dump() for entry in settings.executors]),
            "SYSTEM_FOLDERS": json.dumps([str(folder) for folder in settings.system_folders]),
            "SLURM_INTERVAL": "1",
            "PORT": "0",
        }
        environment = {f"UCLOUD_PROVIDER_{name}": value for name, value in values.items()}
        self._served = served
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ucloud_orchestrator.provider", "--json"],
            env={**os.environ, **environment, "TEMPORAL_ADDRESS": "127.0.0.1:1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        served.url = json.loads(self._process.stdout.readline())["url"]

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()

    def terminate(self, seconds: float) -> int:
        """Ask it to stop; the exit code, which must come within that time."""
        self._process.terminate()
        try:
            self._process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return self._process.returncode


@contextlib.asynccontextmanager
async def serving(served: Served) -> AsyncIterator[Served]:
    config = uvicorn.Config(
        create_server(served.settings, served.reports, served.reports),
        host="127.0.0.1",
        port=0,
        log_level="error",
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())  # without uvicorn's signal handlers
    await eventually(lambda: server.started)
    served.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield served
    finally:
        server.should_exit = True
        async with asyncio.timeout(STOP_TIMEOUT):
            await task


async def kill_wrapper_of(served: Served, job: dict[str, Any]) -> None:
    """Kill the wrapper of a job that runs `sleep`, and wait until all that was below it is gone."""
    number = await eventually(lambda: served.wrapper_of(job))
    assert number is not None
    wrapper = psutil.Process(number)

    def with_sleep() -> list[psutil.Process]:
        processes = wrapper.children(recursive=True)
        return processes if any(process.name() == "sleep" for process in processes) else []

    processes = await eventually(with_sleep)
    wrapper.kill()
    await eventually(lambda: not any(process.is_running() for process in processes))
