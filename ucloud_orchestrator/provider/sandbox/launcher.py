"""The program that becomes a replica's command: before, it opens the replica's files, following no
link.

Between the check of a job's paths and its start, which in a queue may be days later, other jobs may
have put links in the place of its inputs and logs. This is a script of its own, which is started
for each replica, on Slurm's nodes too: it needs nothing but a few modules of the standard library.

python -I -S starter.py STDOUT STDERR NUMBER [DRIVE INSIDE]... COMMAND...

Logs lie in `<drive>/Jobs/<job>`. NUMBER is that of the inputs, each a drive and a path in it; the
command has them open as the descriptors `FIRST`, `FIRST + 1`, ...
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import sys

FIRST = 10
"""The descriptor of the first input; lower ones are in use while files are opened."""
SPARE = 64
"""Descriptors that bubblewrap may need besides."""
NOT_STARTED = 126
"""The exit code if a file is not what it should be: that of a shell for what cannot be started."""


def open_log(file: str) -> int:
    """Open the file of a log for writing, and make it if it is not there. Raises `OSError`."""
    drive, *inside = file.rsplit("/", 3)
    # Nobody may read from a pipe that was put there: it is not waited for.
    number = open_inside(drive, "/".join(inside), os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "It is no plain file", file)
    os.set_blocking(number, True)
    return number


def open_inside(drive: str, inside: str, flags: int = os.O_PATH) -> int:
    """Open a path of a drive, no part of which may be a link. Raises `OSError`."""
    *folders, name = inside.split("/")
    folder = os.open(drive, os.O_PATH | os.O_DIRECTORY)
    try:
        for one in folders:
            inner = os.open(one, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        number = os.open(name, flags | os.O_NOFOLLOW, 0o644, dir_fd=folder)
    finally:
        os.close(folder)
    if stat.S_ISLNK(os.fstat(number).st_mode):  # O_PATH opens the link itself
        os.close(number)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
    return number


def main() -> int:
    """Open everything, and become the command; returns the exit code if that cannot be."""
    stdout, stderr, number, *words = sys.argv[1:]
    inputs, command = words[: 2 * int(number)], words[2 * int(number) :]
    try:
        for target, log in ((2, stderr), (1, stdout)):
            file = open_log(log)
            os.ftruncate(file, 0)
            os.dup2(file, target)
            os.close(file)
        _allow_descriptors(FIRST + len(inputs) // 2 + SPARE)
        for target, (drive, inside) in enumerate(
            zip(inputs[::2], inputs[1::2], strict=True), FIRST
        ):
            source = open_inside(drive, inside)
            os.dup2(source, target)
            os.close(source)
    except OSError as error:
        return _failed(f"{error.filename} has changed since it was checked: {error.strerror}.")
    # What Python ignores its command would ignore too.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606 - a shell would read what users gave
    except OSError as error:
        return _failed(f"{command[0]}: {error.strerror}.")


def _allow_descriptors(number: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < number:
        most = number if hard == resource.RLIM_INFINITY else min(number, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _failed(why: str) -> int:
    sys.stderr.write(f"The job cannot be started: {why}\n")
    return NOT_STARTED


if __name__ == "__main__":
    sys.exit(main())
