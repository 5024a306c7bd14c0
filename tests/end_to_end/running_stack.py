"""A `dev` in a folder of its own, used as people use it: by its command line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil

from tests.builders import file, integer, specification_document, text

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
invocation: [sh, -c, 'echo "$1" >> "$2"; sleep 2', append, {type: var, vars: line}, {type: var, vars: file}]
parameters:
  line: {type: text}
  file: {type: input_file}
"""
"""Shows how often a job was started."""

Value = TypeVar("Value")


def eventually(condition: Callable[[], Value], seconds: float = 40.0) -> Value:
    """Wait until the condition gives something true."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)
    return value


class Stack:
    """A `dev` in a folder of its own."""

    def __init__(self, folder: Path, more_catalog: str = "") -> None:
        self.folder = folder
        shutil.copytree(ROOT / "examples/catalog", folder / "catalog")
        shutil.copytree(ROOT / "examples/files", folder / "files")
        (folder / "catalog" / "more.yaml").write_text(APPEND + more_catalog)
        self.lines = folder / "files" / "lines.txt"
        self.lines.touch()
        self.start()

    def start(self) -> None:
        command = [
            COMMAND,
            "dev",
            "--json",
            "--data-dir",
            str(self.folder),
            "--catalog",
            str(self.folder / "catalog"),
        ]
        command += ["--temporal-port", "0", "--ui-port", "0", "--provider-port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        with self.process.stdout as out:
            self.ready = json.loads(out.readline())

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(60) == 0

    def pid(self, part: str) -> int:
        return int(json.loads((self.folder / "stack.json").read_text())["pids"][part])

    def kill(self, part: str, how: signal.Signals = signal.SIGKILL) -> None:
        """Kill a part, without a warning unless told otherwise, and wait until `dev` has started it
        again.
        """
        before = self.pid(part)
        os.kill(before, how)
        eventually(lambda: self.pid(part) != before)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *arguments, "--data-dir", str(self.folder)],
            capture_output=True,
            text=True,
            timeout=80,
            check=False,
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
        path = self.folder / f"{application}-{uuid.uuid4()}.json"
        document = specification_document(application, version, parameters=parameters)
        path.write_text(json.dumps(document))
        return path

    def reached(
        self, job_id: str, state: str, user: str | None = None, seconds: float = 40.0
    ) -> dict[str, Any]:
        """Wait until the job is in that state, and get it."""
        options = ["--user", user] if user else []

        def there() -> dict[str, Any] | None:
            done = self.run("show", job_id, "--json", *options)
            job: dict[str, Any] = (
                json.loads(done.stdout) if done.returncode == 0 else {"status": {"state": ""}}
            )
            return job if job["status"]["state"] == state else None

        job = eventually(there, seconds)
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
