"""The output of a job: its logs, and the files that are kept at its end. Links are not followed."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import logging
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from ucloud_orchestrator.provider.errors import OutputError
from ucloud_orchestrator.provider.files import trees
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
                _move(path, folder)
        except (OSError, OutputError) as error:
            log.warning("The output %s could not be kept: %s", path, error)
            failed.append(str(relative))
    return failed


@contextlib.contextmanager
def _opened(drive: Path, inside: Path) -> Iterator[int]:
    """Create and open a folder of a drive. Raises `OutputError`."""
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
        yield number
    finally:
        os.close(number)


def _matches(work: Path, pattern: Sequence[str]) -> list[Path]:
    found = [work]
    for part in pattern:
        found = [
            folder / name
            for folder in found
            for name in _names_in(folder)
            if fnmatch.fnmatchcase(name, part)
        ]
    return found


def _names_in(folder: Path) -> list[str]:
    if folder.is_symlink() or not folder.is_dir():
        return []
    try:
        return os.listdir(folder)
    except PermissionError:
        trees.make_accessible(folder)
        return os.listdir(folder)


def _move(path: Path, folder: int) -> None:
    """Move a file or folder into an open folder, under a name that is not in use there."""
    name = _unused_name(folder, path.name)
    try:
        os.rename(path, name, dst_dir_fd=folder)
    except PermissionError:
        # Moving a folder needs write permission on it.
        trees.make_accessible(path)
        os.rename(path, name, dst_dir_fd=folder)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        trees.copy_tree(path, folder, name, makes_accessible=True)
        # A repeated collection, or another pattern, must not find it again.
        trees.make_accessible(path.parent)
        trees.delete(path)


def _unused_name(folder: int, name: str) -> str:
    number, unused = 0, name
    while _exists(folder, unused):
        number += 1
        unused = f"{name} ({number})"
    return unused


def _exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
