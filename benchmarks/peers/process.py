"""A peer's own process, which is asked by lines of JSON, and the CPU time of all that works."""

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
"""Seconds that a load may take; a peer that takes longer is left out."""
NO_TELEMETRY = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
"""Nothing is told to anybody outside of this machine."""


@dataclass(frozen=True)
class Prepared:
    """What a peer's script is started with."""

    script: str
    settings: dict[str, Any]
    environment: dict[str, str] = field(default_factory=lambda: dict(NO_TELEMETRY))
    servers: tuple[int, ...] = ()
    """Processes that work for it and are not below this one."""


@dataclass
class Process:
    """A peer's script: a line in, a line out."""

    process: subprocess.Popen[str]
    log: Path
    servers: Sequence[int] = ()
    silent: threading.Event = field(default_factory=threading.Event)

    @classmethod
    @contextlib.contextmanager
    def of(cls, python: str, prepared: Prepared, log: Path) -> Iterator[Process]:
        """Start it, and end it when it is no longer needed."""
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

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send a line."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `hear` tells why
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """Wait for a line. Raises `PeerUnavailable`."""
        assert self.process.stdout is not None
        limit = threading.Timer(LOAD_TIMEOUT, self._give_up)
        limit.start()
        line = self.process.stdout.readline()
        limit.cancel()
        if self.silent.is_set():
            raise PeerUnavailable(f"it did not end its load within {LOAD_TIMEOUT:.0f} s")
        if not line:
            said = self.log.read_text(errors="replace").strip().splitlines()
            raise PeerUnavailable(
                f"its process ended: {said[-1].strip() if said else 'it wrote nothing'}"
            )
        return dict(json.loads(line))

    def cpu_seconds(self) -> float:
        """Of it, of its servers, and of all that this process has started besides."""
        return cpu_seconds(self.servers)

    def _give_up(self) -> None:
        self.silent.set()
        self.process.kill()


def cpu_seconds(servers: Sequence[int] = ()) -> float:
    """User and system time so far of this process, of those servers and of all below them."""
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
