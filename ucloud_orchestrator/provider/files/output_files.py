"""What a job leaves: its output is kept, the rest of its files is deleted.

Links are never followed.
"""

from __future__ import annotations

import contextlib
import fnmatch
import logging
import os
import shutil
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from ucloud_orchestrator.provider.errors import OutputError
from ucloud_orchestrator.provider.sandbox import launcher

log = logging.getLogger(__name__)


def make_folder(drive: Path, inside: str) -> Path:
    """The folder at that path of a drive, made if it is not there. Raises `OutputError`.

    Other jobs may write into the drive too: where they have put a link, nothing is written.
    """
    folder = drive.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with _opened(folder, Path(inside)):
        return folder / inside


def make_log(file: Path) -> Path:
    """The file for a replica's log, made if it is not there.

    Raises `OutputError` where there is a link or a pipe.
    """
    try:
        os.close(launcher.open_log(str(file)))
    except OSError as error:
        raise OutputError(f"The log {file.name} cannot be written: {error.strerror}.") from error
    return file


def collect(
    work: Path, output: Path, patterns: Sequence[str], mounts: Collection[str]
) -> list[str]:
    """Move what matches a pattern from the work folder to the output; returns what could not be
    moved.

    A pattern is a path below the work folder, in which `*`, `?` and `[...]` stand for anything but
    a slash; a folder that matches is moved with all that is in it. `mounts` are the names that
    belong to mounted files. A name that the output has already gets a number. May be repeated after
    a crash. The output is `<drive>/Jobs/<job>`.
    """
    drive = output.parents[1]
    failed = []
    found = {path for pattern in patterns for path in _matches(work, pattern.strip("/").split("/"))}
    for path in sorted(found, key=lambda path: len(path.parts)):  # folders before what is in them
        relative = path.relative_to(work)
        if relative.parts[0] in mounts or not os.path.lexists(path):
            continue
        try:
            with _opened(drive, output.relative_to(drive) / relative.parent) as folder:
                _move(path, _free(folder / relative.name))
        except (OSError, OutputError, shutil.Error) as error:
            log.warning("The output %s could not be kept: %s", path, error)
            failed.append(str(relative))
    return failed


def delete(folder: Path) -> None:
    """Delete a folder with all that is in it, also what its owner has closed to himself."""
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.is_dir():
        return
    for parent, names, _ in os.walk(folder):
        for name in names:
            _open(Path(parent, name))
    shutil.rmtree(folder, ignore_errors=True)
    if folder.is_dir():
        log.warning("The folder %s could not be deleted.", folder)


@contextlib.contextmanager
def _opened(drive: Path, inside: Path) -> Iterator[Path]:
    """A folder of a drive, made if it is not there, by a path that leads to it whatever other jobs
    put in its place.
    """
    number = os.open(drive, os.O_PATH | os.O_DIRECTORY)
    try:
        for name in inside.parts:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=number)
            try:
                inner = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=number)
            except NotADirectoryError as error:
                text = (
                    f"The output cannot be written to {inside}, because {name} is not a folder "
                    "there."
                )
                raise OutputError(text) from error
            os.close(number)
            number = inner
        yield Path(f"/proc/self/fd/{number}")
    finally:
        os.close(number)


def _matches(folder: Path, pattern: Sequence[str]) -> Iterator[Path]:
    first, *more = pattern
    if not _is_folder(folder):
        return
    try:
        names = sorted(os.listdir(folder))
    except PermissionError:
        _open(folder)
        names = sorted(os.listdir(folder))
    for name in names:
        if not fnmatch.fnmatchcase(name, first):
            continue
        if more:
            yield from _matches(folder / name, more)
        else:
            yield folder / name


def _move(path: Path, target: Path) -> None:
    try:
        os.rename(path, target)
    except PermissionError:
        # A folder cannot be moved by him who may not write into it.
        _open(path)
        os.rename(path, target)
    except OSError:  # to another file system; links are made again, not followed
        shutil.move(path, target)


def _free(path: Path) -> Path:
    number, free = 0, path
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{path.name} ({number})")
    return free


def _open(path: Path) -> None:
    if _is_folder(path):
        path.chmod(stat.S_IMODE(path.lstat().st_mode) | stat.S_IRWXU)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
