"""Exec: run another program in the sandbox of a running replica, with the same rights."""

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
"""The files below `/proc/<pid>/ns`, and their options of `nsenter`."""


@dataclass(frozen=True)
class ExecTarget:
    """A running replica in which a command can be executed. Its standard input is a terminal."""

    arguments: Callable[[Sequence[str], Mapping[str, str]], list[str]]
    """Returns the arguments that run a command there with more environment variables."""
    wrapper: int | None = None
    """The process id of the replica's wrapper, if it is on this machine."""


def exec_command(wrapper: int, command: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Return the arguments that run `command` in the replica with this wrapper (process id).

    The command gets a session of its own, with its standard input as the controlling terminal. It
    has the environment of the replica's program and `environment`, its working directory, and no
    more rights. Raises `ExecError`.
    """
    program, initial = _program_of(wrapper)
    try:
        variables = {**program.environ(), **environment}
        directory = program.cwd()
    except psutil.Error as error:
        raise ExecError("The replica has ended.") from error
    words = ["/usr/bin/setsid", "--ctty", "--wait"]
    words += ["/usr/bin/env", "-i", "--default-signal", "-C", directory]
    words += [f"{name}={value}" for name, value in variables.items()]
    words += command
    return words if initial is None else [*_enter_sandbox(initial), *words]


def _enter_sandbox(initial: int) -> list[str]:
    """Return the words that join the namespaces of a process and drop rights as the sandbox does.

    The replica's programs see the new process and its environment at once, so that is empty.
    """
    words = ["/usr/bin/env", "-i", "/usr/bin/nsenter", "--target", str(initial)]
    if _is_other_namespace(initial, "user"):
        words += ["--user", "--preserve-credentials"]
    words += [
        f"--{option}" for name, option in NAMESPACES.items() if _is_other_namespace(initial, name)
    ]
    words += ["--", "/usr/bin/setpriv", "--no-new-privs", "--inh-caps=-all"]
    if os.geteuid() == 0:
        kept = [f"+{capability.lower()}" for capability in bubblewrap.ROOT_CAPABILITIES]
        words.append(f"--bounding-set={','.join(['-all', *kept])}")
    return words


def can_exec(wrapper: int) -> bool:
    """Return whether the replica's own program runs, which `exec_command` needs."""
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
            if _inner_id(process) == 1 and (programs := _children(process)):
                return psutil.Process(programs[0]), process
            if not bubblewrap.is_available():
                program = psutil.Process(process)
                # The shell and the launcher have its path in their arguments; the program has not.
                if launcher.__file__ not in program.cmdline():
                    return program, None
    raise ExecError("The replica has not started yet, or has ended.")


def _descendants(process: int) -> Iterator[int]:
    pending = _children(process)
    while pending:
        child = pending.pop(0)
        yield child
        pending = _children(child) + pending


def _children(process: int) -> list[int]:
    """Return the children of a process with one thread; psutil would read all of `/proc`."""
    with contextlib.suppress(OSError), open(f"/proc/{process}/task/{process}/children") as file:
        return [int(child) for child in file.read().split()]
    return [child.pid for child in psutil.Process(process).children()]


def _inner_id(process: int) -> int | None:
    with contextlib.suppress(OSError), open(f"/proc/{process}/status") as file:
        for line in file:
            if line.startswith("NSpid:"):
                numbers = line.split()[1:]
                return int(numbers[-1]) if len(numbers) > 1 else None
    return None


def _is_other_namespace(process: int, name: str) -> bool:
    """Return whether a process and this one are in different namespaces of that kind."""
    try:
        return os.readlink(f"/proc/{process}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}")
    except OSError:
        return False
