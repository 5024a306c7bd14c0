"""The script that opens a replica's files beneath their drives and then becomes its command.

Between the check of a job's paths and its start, which in a queue may be days later, other jobs may
have put links in place of its inputs and logs. `open_beneath`, which follows no link, is the
one way of the provider into folders that jobs may write to.

As a script it runs for each replica, on Slurm's nodes too, with the standard library alone:

python -I -S launcher.py STDOUT STDERR NUMBER [DRIVE INSIDE]... COMMAND...

Logs lie in `<drive>/Jobs/<job>`. NUMBER is that of the inputs, each a drive and a path in it; the
command has them open as the descriptors `FIRST`, `FIRST + 1`, ...
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import stat
import sys

FIRST = 10
"""The descriptor of the first input; lower ones are in use while files are opened."""
SPARE = 64
"""More descriptors that bubblewrap may need."""
NOT_STARTED = 126
"""The exit code if a file has changed: a shell's for a command that cannot be executed."""


def open_log(file: str) -> int:
    """Open a log for writing; create it if it is missing. Raises `OSError`."""
    drive, *inside = file.rsplit("/", 3)
    # O_NONBLOCK: opening a FIFO without a reader must not block.
    number = open_beneath(drive, "/".join(inside), os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "It is not a regular file", file)
    os.set_blocking(number, True)
    return number


def open_beneath(root: str, path: str, flags: int = os.O_PATH, makes_folders: bool = False) -> int:
    """Open `path` below `root`; no part of it may be a link. Returns the descriptor.

    `makes_folders` creates the missing folders of the path, its last part too. Raises `OSError`,
    whose `filename` is the part that is wrong.
    """
    *folders, name = path.split("/")
    parent = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        for folder in folders:
            inner = _open_part(parent, folder, os.O_PATH | os.O_DIRECTORY, makes_folders)
            os.close(parent)
            parent = inner
        number = _open_part(parent, name, flags, makes_folders)
    finally:
        os.close(parent)
    if stat.S_ISLNK(os.fstat(number).st_mode):  # O_PATH opens the link itself
        os.close(number)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
    return number


def _open_part(parent: int, name: str, flags: int, makes_folder: bool) -> int:
    if makes_folder:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=parent)
    return os.open(name, flags | os.O_NOFOLLOW, 0o644, dir_fd=parent)


def main() -> int:
    """Open all files, then exec the command. Returns the exit code if that fails."""
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
            source = open_beneath(drive, inside)
            os.dup2(source, target)
            os.close(source)
    except OSError as error:
        return _failed(f"{error.filename} has changed since it was checked: {error.strerror}.")
    # The command would inherit what Python ignores.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606 - a shell would interpret the values of users
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
