"""One replica of a job: how it is started once, watched, stopped, and what it left; all read from
its control folder.

The control folder is the truth, because it outlives this process: `started` is made by the wrapper
before the program runs (so a second start refuses itself), `pid` names the wrapper, and `exit-code`
comes when the program has ended. PSI/J starts the wrapper; its own states are not used, since after
a restart it cannot know an exit code.
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

WRAPPER = """
control=$1
shift
mkdir "$control/started" || exit 0
[ -p "$control/hold" ] && exec 3<> "$control/hold"
echo $$ > "$control/pid.new" && mv "$control/pid.new" "$control/pid"
"$@" < /dev/null 3<&-
echo $? > "$control/exit-code.new" && mv "$control/exit-code.new" "$control/exit-code"
"""
"""Runs the rest of its arguments as they are; nothing that a user gave is read by the shell.

What waits at the pipe `hold`, such as the replica's network, ends with the wrapper, once `pid` is
there.
"""

STARTER = (sys.executable, "-I", "-S")
"""The interpreter of the starter; without packages, so that it is there at once."""
STOP_GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL."""
START_TIMEOUT = 10.0
"""Seconds after which a replica that was begun but has neither a process nor an exit code counts as
vanished.
"""


class Phase(Enum):
    """Where a replica is."""

    NOT_STARTED = "not started"
    RUNNING = "running"
    ENDED = "ended"
    VANISHED = "vanished"


@dataclass(frozen=True)
class ReplicaStatus:
    """A replica's phase, and its exit code and when it ended (seconds since the epoch) if it has
    ended by itself.
    """

    phase: Phase
    exit_code: int | None = None
    ended_at: float = math.inf

    @property
    def is_over(self) -> bool:
        """Whether nothing of it runs any more."""
        return self.phase in {Phase.ENDED, Phase.VANISHED}

    @property
    def has_failed(self) -> bool:
        """Whether it ended otherwise than it should."""
        return self.phase is Phase.VANISHED or bool(self.exit_code)


class Replica:
    """The replica of a rank, known by its control folder."""

    def __init__(self, rank: int, control: Path) -> None:
        self.rank = rank
        self._control = control
        self._stop_began: float | None = None
        self._missing_since: float | None = None

    def start(
        self,
        executor: psij.JobExecutor,
        command: Sequence[str],
        work: Path,
        stdout: Path,
        stderr: Path,
    ) -> psij.Job:
        """Have PSI/J start it, by the starter.

        A second start of the same replica ends at once, without an effect.
        """
        specification = psij.JobSpec(
            # So that a Ctrl-C at the provider's terminal does not reach jobs
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
            inherit_environment=False,  # it holds this process's secrets
            environment={"PATH": bubblewrap.PATH, **_needed_by_the_interpreter()},
        )
        job = psij.Job(specification)
        executor.submit(job)
        return job

    def condition(self) -> ReplicaStatus:
        """What the control folder and the machine's processes say now."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            file = self._control / "exit-code"
            return ReplicaStatus(Phase.ENDED, int(file.read_text()), file.stat().st_mtime)
        if not (self._control / "started").is_dir():
            return ReplicaStatus(Phase.NOT_STARTED)
        if self._wrapper() is not None:
            self._missing_since = None
            return ReplicaStatus(Phase.RUNNING)
        # The wrapper may be between two of its steps: only a lasting absence counts.
        now = time.monotonic()
        self._missing_since = self._missing_since or now
        timeout = 1.0 if (self._control / "pid").exists() else START_TIMEOUT
        return ReplicaStatus(
            Phase.VANISHED if now - self._missing_since > timeout else Phase.RUNNING
        )

    @property
    def has_begun(self) -> bool:
        """Whether its wrapper has come so far that it holds what the replica needs."""
        return (self._control / "pid").exists()

    @property
    def wrapper(self) -> int | None:
        """The process id of its wrapper, while it runs."""
        process = self._wrapper()
        return None if process is None else process.pid

    def stop(self) -> None:
        """Ask its processes to end; ask again after a grace period, and they are killed.

        To be called repeatedly.
        """
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
        """Send a signal to all of its processes, such as SIGSTOP and SIGCONT."""
        wrapper = self._wrapper()
        if wrapper is not None:
            _signal(self._programs(wrapper), number)

    def _wrapper(self) -> psutil.Process | None:
        """The wrapper's process; another process that has got the same number since is not taken
        for it.
        """
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
        """What runs inside the sandbox; not bubblewrap, whose end would take the programs' own with
        it.
        """
        programs = []
        with contextlib.suppress(psutil.Error):
            for process in wrapper.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if process.name() != "bwrap":
                        programs.append(process)
        return programs


def _needed_by_the_interpreter() -> dict[str, str]:
    return {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}


def _signal(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)
