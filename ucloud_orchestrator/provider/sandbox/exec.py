"""Joining a running replica: how another program comes into its sandbox, with its rights and its
environment.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import psutil

from ucloud_orchestrator.provider.errors import ExecError
from ucloud_orchestrator.provider.sandbox import bubblewrap, launcher

NAMESPACES = {
    "mnt": "mount",
    "pid": "pid",
    "ipc": "ipc",
    "net": "net",
    "uts": "uts",
    "cgroup": "cgroup",
}
"""The files below `/proc/<pid>/ns`, and what `nsenter` calls them."""


@dataclass(frozen=True)
class ExecTarget:
    """How a program comes into a running replica: the arguments for a command with more environment
    variables.

    Its standard input must be a terminal. `wrapper` is the replica's wrapper, if that is on this
    machine.
    """

    arguments: Callable[[Sequence[str], Mapping[str, str]], list[str]]
    wrapper: int | None = None


def exec_command(wrapper: int, command: Sequence[str], more: Mapping[str, str]) -> list[str]:
    """The arguments that run `command` as a program of the replica whose wrapper has that process
    id.

    It has a session of its own, whose terminal is its standard input if that is one; the
    environment of the replica's own program, with `more`; its working directory; and no more rights
    than that program. Raises `ExecError`.
    """
    program, initial = _program_of(wrapper)
    try:
        environment = {**program.environ(), **more}
        directory = program.cwd()
    except psutil.Error as error:
        raise ExecError("The replica has ended.") from error
    settings = [f"{name}={value}" for name, value in environment.items()]
    terminal = ["/usr/bin/setsid", "--ctty", "--wait"]
    if initial is None:  # there is no sandbox
        return [
            *terminal,
            "/usr/bin/env",
            "-i",
            "--default-signal",
            "-C",
            directory,
            *settings,
            *command,
        ]
    # What enters is seen by the replica's programs at once, with its environment.
    words = ["/usr/bin/env", "-i", "/usr/bin/nsenter", "--target", str(initial)]
    if _is_other(initial, "user"):
        words += ["--user", "--preserve-credentials"]
    words += [f"--{option}" for name, option in NAMESPACES.items() if _is_other(initial, name)]
    rights = ["/usr/bin/setpriv", "--no-new-privs", "--inh-caps=-all"]
    if os.geteuid() == 0:
        rights.append(
            "--bounding-set="
            + ",".join(["-all", *(f"+{one.lower()}" for one in bubblewrap.ROOT_CAPABILITIES)])
        )
    return [
        *words,
        "--",
        *rights,
        *terminal,
        "/usr/bin/env",
        "-i",
        "--default-signal",
        "-C",
        directory,
        *settings,
        *command,
    ]


def can_exec(wrapper: int) -> bool:
    """Whether the replica's own program runs, so that another one can join its sandbox."""
    try:
        _program_of(wrapper)
    except ExecError:
        return False
    return True


def _program_of(wrapper: int) -> tuple[psutil.Process, int | None]:
    """Return the replica's own program, and the first process of its sandbox if it has one.

    Raises `ExecError`.
    """
    with contextlib.suppress(psutil.Error):
        for process in _descendants(wrapper):
            if _number_inside(process) == 1 and (programs := _children(process)):
                return psutil.Process(programs[0]), process
            if not bubblewrap.is_available():
                program = psutil.Process(process)
                # The shell and the launcher have its path in their arguments; the program has not.
                if launcher.__file__ not in program.cmdline():
                    return program, None
    raise ExecError("The replica has not started yet, or has ended.")


def _descendants(process: int) -> Iterator[int]:
    for child in _children(process):
        yield child
        yield from _descendants(child)


def _children(process: int) -> list[int]:
    """Return the children of a process with one thread; psutil would read all of `/proc`."""
    with contextlib.suppress(OSError), open(f"/proc/{process}/task/{process}/children") as file:
        return [int(child) for child in file.read().split()]
    return [child.pid for child in psutil.Process(process).children()]


def _number_inside(process: int) -> int | None:
    """The number that a process has in its own process namespace."""
    with contextlib.suppress(OSError), open(f"/proc/{process}/status") as file:
        for line in file:
            if line.startswith("NSpid:"):
                numbers = line.split()[1:]
                return int(numbers[-1]) if len(numbers) > 1 else None
    return None


def _is_other(process: int, name: str) -> bool:
    """Whether a process is in another namespace of that kind than this one."""
    try:
        return os.readlink(f"/proc/{process}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}")
    except OSError:
        return False
