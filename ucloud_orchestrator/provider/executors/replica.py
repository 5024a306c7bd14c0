"""One replica of a job as a process tree of this machine; its state is in its control directory.

The control directory outlives this process. The wrapper makes `started` before the program runs, so
that a second start ends at once. `pid` names the wrapper. `exit-code` is written when the program
has ended. PSI/J starts the wrapper; its states are not used, because after a restart it cannot
return an exit code.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import psij
import psutil

from ucloud_orchestrator.provider.sandbox import bubblewrap, launcher
from ucloud_orchestrator.provider.sandbox.exec import can_exec

WRAPPER = """
control=$1
shift
mkdir "$control/started" || exit 0
[ -p "$control/hold" ] && exec 3<> "$control/hold"
echo $$ > "$control/pid.new" && mv "$control/pid.new" "$control/pid"
"$@" < /dev/null 3<&-
echo $? > "$control/exit-code.new" && mv "$control/exit-code.new" "$control/exit-code"
"""
"""Runs the rest of its arguments as they are; the shell reads nothing that a user gave.

Processes that read the pipe `hold`, such as the replica's network, end with the wrapper.
"""

STARTER = (sys.executable, "-I", "-S")
"""The launcher's interpreter; without site packages it starts faster."""
STOP_GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL."""
START_TIMEOUT = 10.0
"""Seconds without a process or an exit code after which a started replica has vanished."""


class ReplicaPhase(Enum):
    NOT_STARTED = "not started"
    STARTING = "starting"
    """Started; its sandbox cannot be entered yet."""
    RUNNING = "running"
    """A program can be run in its sandbox."""
    ENDED = "ended"
    VANISHED = "vanished"
    """Its processes are gone without an exit code."""


@dataclass(frozen=True)
class ReplicaStatus:
    """The phase of a replica; if it ended by itself, its exit code and the time of its end (seconds
    since the epoch).
    """

    phase: ReplicaPhase
    exit_code: int | None = None
    ended_at: float = math.inf

    @property
    def is_active(self) -> bool:
        return self.phase in {ReplicaPhase.STARTING, ReplicaPhase.RUNNING}

    @property
    def is_over(self) -> bool:
        return self.phase in {ReplicaPhase.ENDED, ReplicaPhase.VANISHED}

    @property
    def has_failed(self) -> bool:
        return self.phase is ReplicaPhase.VANISHED or bool(self.exit_code)


def read_exit_code(control: Path) -> ReplicaStatus | None:
    with contextlib.suppress(FileNotFoundError, ValueError):
        file = control / "exit-code"
        return ReplicaStatus(ReplicaPhase.ENDED, int(file.read_text()), file.stat().st_mtime)
    return None


class Replica:
    def __init__(self, rank: int, control: Path) -> None:
        self.rank = rank
        self._control = control
        self._stop_began: float | None = None
        self._missing_since: float | None = None
        self._can_exec = False

    def start(
        self,
        executor: psij.JobExecutor,
        command: Sequence[str],
        work: Path,
        stdout: Path,
        stderr: Path,
    ) -> psij.Job:
        """Start the wrapper and the launcher with PSI/J. Idempotent."""
        specification = psij.JobSpec(
            # A Ctrl-C at the provider's terminal must not reach jobs.
            executable="/usr/bin/setsid",
            arguments=[
                "--wait",
                "/bin/sh",
                "-c",
                WRAPPER,
                "replica",
                str(self._control),
                *STARTER,
                launcher.__file__,
                *map(str, (stdout, stderr)),
                *command,
            ],
            directory=work,
            inherit_environment=False,  # it has this process's secrets
            environment={"PATH": bubblewrap.PATH, **_interpreter_environment()},
        )
        job = psij.Job(specification)
        executor.submit(job)
        return job

    def status(self) -> ReplicaStatus:
        """Read the control directory and the machine's process table."""
        if (end := read_exit_code(self._control)) is not None:
            return end
        if not (self._control / "started").is_dir():
            return ReplicaStatus(ReplicaPhase.NOT_STARTED)
        wrapper = self._wrapper()
        if wrapper is not None:
            self._missing_since = None
            self._can_exec = self._can_exec or can_exec(wrapper.pid)
        elif self._is_missing_for_long():
            return ReplicaStatus(ReplicaPhase.VANISHED)
        return ReplicaStatus(ReplicaPhase.RUNNING if self._can_exec else ReplicaPhase.STARTING)

    def _is_missing_for_long(self) -> bool:
        """Whether the absence of the wrapper lasts: it may be between two of its steps."""
        now = time.monotonic()
        self._missing_since = self._missing_since or now
        timeout = 1.0 if self.has_begun else START_TIMEOUT
        return now - self._missing_since > timeout

    @property
    def has_begun(self) -> bool:
        """Check if the wrapper has written its `pid`; by then it has opened the pipe `hold`."""
        return (self._control / "pid").exists()

    @property
    def wrapper(self) -> int | None:
        """Return the process id of the wrapper, while it runs."""
        process = self._wrapper()
        return None if process is None else process.pid

    def stop(self) -> None:
        """Send SIGTERM; a call after the grace period sends SIGKILL."""
        wrapper = self._wrapper()
        if wrapper is None:
            return
        now = time.monotonic()
        if self._stop_began is None:
            self._stop_began = now
            self.signal(signal.SIGCONT)
            _signal(self._programs(wrapper), signal.SIGTERM)
        elif now - self._stop_began > STOP_GRACE:
            _signal(wrapper.children(recursive=True), signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        wrapper = self._wrapper()
        if wrapper is not None:
            _signal(self._programs(wrapper), number)

    def _wrapper(self) -> psutil.Process | None:
        """Return the wrapper's process, unless its id now belongs to another process."""
        try:
            process = psutil.Process(int((self._control / "pid").read_text()))
            is_ours = (
                str(self._control) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE
            )
        except (OSError, ValueError, psutil.Error):
            return None
        return process if is_ours else None

    @staticmethod
    def _programs(wrapper: psutil.Process) -> list[psutil.Process]:
        """Return the processes in the sandbox, without bubblewrap: its end would kill them."""
        programs = []
        with contextlib.suppress(psutil.Error):
            for process in wrapper.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if process.name() != "bwrap":
                        programs.append(process)
        return programs


def _interpreter_environment() -> dict[str, str]:
    return {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}


def _signal(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)
