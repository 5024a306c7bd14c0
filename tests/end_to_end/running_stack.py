"""A `dev` in a folder of its own, used as people use it: by its command line."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from contextlib import suppress
from getpass import getuser
from pathlib import Path
from typing import Any

import psutil
import pytest
from temporalio.client import Client

from client import Actor, JobClient, OrchestratorError
from tests.builders import file, integer, specification_document, text
from tests.waiting import wait_until
from ucloud_orchestrator.models import Job
from ucloud_orchestrator.temporal.connection import connect_to_temporal
from ucloud_orchestrator.temporal.encryption_keys import KEY_FILE_VARIABLE

ROOT = Path(__file__).parent.parent.parent
COMMAND = str(Path(sys.executable).parent / "ucloud-orchestrator")
TEMPORAL = str(Path(sys.executable).parent / "temporal")

APPEND = """
application: v1
title: Append
name: append
version: "1"
authors: [UCloud]
description: Adds a line to a file, and then takes a while.
tool: {name: system, version: "1"}
applicationType: BATCH
invocation:
  [sh, -c, 'echo "$1" >> "$2"; sleep 2', append, {type: var, vars: [line, file]}]
parameters:
  line: {type: text}
  file: {type: input_file}
"""
"""Shows how often a job was started."""


class Stack:
    """A `dev` in a folder of its own, with more documents in its catalog and more settings."""

    def __init__(
        self, folder: Path, more_catalog: str = "", environment: dict[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.environment = environment or {}
        shutil.copytree(ROOT / "examples/catalog", folder / "catalog")
        shutil.copytree(ROOT / "examples/files", folder / "files")
        (folder / "catalog" / "more.yaml").write_text(APPEND + more_catalog)
        self.lines = folder / "files" / "lines.txt"
        self.lines.touch()
        self.start()

    def start(self) -> None:
        command = [COMMAND, "dev", "--json"]
        command += ["--data-dir", str(self.folder), "--catalog", str(self.folder / "catalog")]
        command += ["--temporal-port", "0", "--ui-port", "0", "--provider-port", "0"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=os.environ | self.environment
        )
        assert self.process.stdout is not None
        with self.process.stdout as out:
            self.ready = json.loads(out.readline())
        self._reader = JobReader(self.ready["temporal"], self.environment)

    def stop(self) -> None:
        self._reader.close()
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(60) == 0

    def pid(self, name: str) -> int:
        return int(json.loads((self.folder / "stack.json").read_text())["pids"][name])

    def kill(self, name: str, how: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a process, and wait until `dev` has started it again."""
        before = self.pid(name)
        os.kill(before, how)
        wait_until(lambda: self.pid(name) != before)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *arguments, "--data-dir", str(self.folder)],
            capture_output=True,
            text=True,
            timeout=80,
            check=False,
            env=os.environ | self.environment | environment,
        )

    def json(self, *arguments: str) -> Any:
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def submit(self, name: str) -> str:
        return str(self.json("submit", str(ROOT / "examples" / "jobs" / name))["id"])

    def sleeping(self, seconds: int) -> str:
        job = self.job_file("sleep", "1.0", seconds=integer(seconds))
        return str(self.json("submit", str(job))["id"])

    def appending(self, line: str) -> Path:
        """A job file whose job adds that line to the lines, each time that it is started."""
        lines = file("/examples/lines.txt", readOnly=False)
        return self.job_file("append", "1", line=text(line), file=lines)

    def times_started(self, line: str) -> int:
        return self.lines.read_text().splitlines().count(line)

    def job_file(self, application: str, version: str, **parameters: Any) -> Path:
        """Write a job file that may be submitted while other tests run the same job."""
        path = self.folder / f"{application}-{uuid.uuid4()}.json"
        document = specification_document(
            application, version, parameters=parameters, allowDuplicateJob=True
        )
        path.write_text(json.dumps(document))
        return path

    def reached(
        self, job_id: str, state: str, user: str | None = None, seconds: float = 40.0
    ) -> dict[str, Any]:
        """Wait until the job is in that state, and return it."""

        def job_in_state() -> dict[str, Any] | None:
            job = self._reader.retrieve(job_id, user or getuser())
            return job.to_wire() if job and job.status.state == state else None

        job = wait_until(job_in_state, seconds)
        assert job is not None
        return job

    def output(self, job_id: str, name: str) -> str:
        return (self.folder / "provider/drives/home/Jobs" / job_id / name).read_text()

    def temporal(self, *arguments: str) -> Any:
        command = [TEMPORAL, *arguments, "--address", self.ready["temporal"], "--output", "json"]
        return json.loads(
            subprocess.run(command, capture_output=True, text=True, check=True).stdout or "null"
        )

    def processes_of(self, job_id: str) -> list[int]:
        found = []
        for process in psutil.process_iter(["cmdline"]):
            if any(job_id in word for word in process.info["cmdline"] or ()):
                found.append(process.pid)
        return found

    def nothing_is_left_of(self, job_id: str) -> bool:
        return (
            not self.processes_of(job_id) and not (self.folder / "provider/jobs" / job_id).exists()
        )


class JobReader:
    """Retrieves jobs in an event loop of its own thread: far cheaper than a command each time."""

    def __init__(self, address: str, environment: dict[str, str]) -> None:
        self._address = address
        self._key_file = environment.get(KEY_FILE_VARIABLE)
        self._temporal: Client | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def retrieve(self, job_id: str, user: str) -> Job | None:
        """Return the job, or None where it cannot be read now."""
        return asyncio.run_coroutine_threadsafe(self._retrieve(job_id, user), self._loop).result()

    async def _retrieve(self, job_id: str, user: str) -> Job | None:
        with suppress(OrchestratorError):
            if self._temporal is None:
                with pytest.MonkeyPatch.context() as patch:
                    if self._key_file:
                        patch.setenv(KEY_FILE_VARIABLE, self._key_file)
                    self._temporal = await connect_to_temporal(self._address)
            return await JobClient(self._temporal, Actor(username=user)).retrieve(job_id)
        return None

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
