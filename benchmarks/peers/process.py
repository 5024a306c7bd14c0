"""The process of a peer, which reads and writes lines of JSON, and the CPU time of processes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.peers.environments import PeerUnavailable

LOAD_TIMEOUT = 600.0
"""Seconds that a load may take; a slower peer is left out."""
NO_TELEMETRY = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}


@dataclass(frozen=True)
class Prepared:
    script: str
    settings: dict[str, Any]
    environment: dict[str, str] = field(default_factory=lambda: dict(NO_TELEMETRY))
    servers: tuple[int, ...] = ()
    """Its servers that are not children of this process."""


@dataclass
class Process:
    """The running script of a peer: one line in, one line out."""

    process: subprocess.Popen[str]
    log: Path
    servers: Sequence[int] = ()
    silent: threading.Event = field(default_factory=threading.Event)

    @classmethod
    @contextlib.contextmanager
    def of(cls, python: str, prepared: Prepared, log: Path) -> Iterator[Process]:
        with log.open("w") as errors:
            process = subprocess.Popen(
                [python, str(Path(__file__).parent / prepared.script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={"PATH": "/usr/bin:/bin", "TMPDIR": str(log.parent), **prepared.environment},
            )
        try:
            yield cls(process, log, prepared.servers)
        finally:
            process.kill()
            process.communicate()

    def send(self, message: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `receive` raises the reason
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        """Wait for a line. Raises `PeerUnavailable`."""
        assert self.process.stdout is not None
        limit = threading.Timer(LOAD_TIMEOUT, self._give_up)
        limit.start()
        line = self.process.stdout.readline()
        limit.cancel()
        if self.silent.is_set():
            raise PeerUnavailable(f"it did not end its load within {LOAD_TIMEOUT:.0f} s")
        if not line:
            lines = self.log.read_text(errors="replace").strip().splitlines()
            raise PeerUnavailable(
                f"its process ended: {lines[-1].strip() if lines else 'it wrote nothing'}"
            )
        return dict(json.loads(line))

    def cpu_seconds(self) -> float:
        """Return the CPU time of the script, its servers, and this process with its children."""
        return cpu_seconds(self.servers)

    def _give_up(self) -> None:
        self.silent.set()
        self.process.kill()


def cpu_seconds(servers: Sequence[int] = ()) -> float:
    """Return user and system time of this process, the servers and all their children."""
    processes = [psutil.Process(pid) for pid in (os.getpid(), *servers)]
    processes += [child for process in processes for child in process.children(recursive=True)]
    used = 0.0
    for process in processes:
        with contextlib.suppress(
            psutil.NoSuchProcess
        ):  # a connection to PostgreSQL that has just been closed
            times = process.cpu_times()
            used += times.user + times.system
    return used
