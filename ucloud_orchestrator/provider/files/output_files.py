"""The files that a job leaves: its output is kept, the others are deleted.

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
    """Create the folder at that path of a drive. Idempotent.

    Other jobs may write into the drive too. Raises `OutputError` where there is a link.
    """
    folder = drive.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with _opened(folder, Path(inside)):
        return folder / inside


def make_log(file: Path) -> Path:
    """Create the file for a replica's log. Idempotent.

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
    """Move what matches a pattern from the work folder to the output. Idempotent.

    A pattern is a path below the work folder, in which `*`, `?` and `[...]` match anything but a
    slash. A folder that matches is moved with its content. `mounts` are the names of mounted files,
    which stay. A name that the output has already gets a number. `output` is `<drive>/Jobs/<job>`.
    Returns what could not be moved.
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
                _move(path, _unused_name(folder / relative.name))
        except (OSError, OutputError, shutil.Error) as error:
            log.warning("The output %s could not be kept: %s", path, error)
            failed.append(str(relative))
    return failed


def delete(folder: Path) -> None:
    """Delete a folder and its content, also what its owner has made unreadable."""
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.is_dir():
        return
    for parent, names, _ in os.walk(folder):
        for name in names:
            _make_accessible(Path(parent, name))
    shutil.rmtree(folder, ignore_errors=True)
    if folder.is_dir():
        log.warning("The folder %s could not be deleted.", folder)


@contextlib.contextmanager
def _opened(drive: Path, inside: Path) -> Iterator[Path]:
    """Create and open a folder of a drive. Its path leads to it whatever other jobs rename."""
    try:
        number = launcher.open_beneath(
            str(drive), str(inside), os.O_PATH | os.O_DIRECTORY, makes_folders=True
        )
    except NotADirectoryError as error:
        raise OutputError(
            f"The output cannot be written to {inside}, because {error.filename} is not a folder "
            "there."
        ) from error
    try:
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
        _make_accessible(folder)
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
        # Moving a folder needs write permission on it.
        _make_accessible(path)
        os.rename(path, target)
    except OSError:  # another file system; links are copied as links
        shutil.move(path, target)


def _unused_name(path: Path) -> Path:
    number, unused = 0, path
    while os.path.lexists(unused):
        number += 1
        unused = path.with_name(f"{path.name} ({number})")
    return unused


def _make_accessible(path: Path) -> None:
    if _is_folder(path):
        path.chmod(stat.S_IMODE(path.lstat().st_mode) | stat.S_IRWXU)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
