"""Deletion and copies of folders that jobs have filled.

Nothing here recurses or follows links: jobs make folders that are thousands of levels deep.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from pathlib import Path

from ucloud_orchestrator.provider.errors import OutputError
from ucloud_orchestrator.provider.sandbox.launcher import open_beneath


def delete(path: Path) -> None:
    """Delete a file, link or folder. Raises `OSError`."""
    if path.is_dir() and not path.is_symlink():
        delete_tree(path)
    else:
        path.unlink()


def delete_tree(folder: Path) -> None:
    """Delete a folder and its content, also what its owner has made inaccessible.

    Inner folders are moved up to `folder` before they are emptied: neither paths nor the number of
    open files grow with the depth. Raises `OSError` if something remains.
    """
    root, failed = _open_accessible(str(folder)), set[str]()
    try:
        while names := set(_delete_files(root)) - failed:
            for name in names:
                try:
                    _move_folders_up(root, name)
                    os.rmdir(name, dir_fd=root)
                except OSError:
                    failed.add(name)
    finally:
        os.close(root)
    folder.rmdir()


def _move_folders_up(root: int, name: str) -> None:
    """Move the folders in the folder `name` to `root`, and delete the other files in it."""
    folder = _open_accessible(name, root)
    try:
        for inner in _delete_files(folder):
            os.close(_open_accessible(inner, folder))  # moving it needs its permissions
            os.rename(inner, secrets.token_hex(16), src_dir_fd=folder, dst_dir_fd=root)
    finally:
        os.close(folder)


def _delete_files(folder: int) -> list[str]:
    """Delete all but the folders in a folder, and return their names."""
    with os.scandir(folder) as entries:
        kinds = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in kinds:
        if not is_directory:
            with contextlib.suppress(OSError):  # the folder cannot be deleted then
                os.unlink(name, dir_fd=folder)
    return [name for name, is_directory in kinds if is_directory]


def _open_accessible(name: str, parent: int | None = None) -> int:
    """Give a folder's owner all permissions on it, and open it."""
    number = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        os.chmod(f"/proc/self/fd/{number}", stat.S_IRWXU)
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=number)
    finally:
        os.close(number)


def copy_tree(source: Path, folder: int, name: str, makes_accessible: bool = False) -> None:
    """Copy a file, link or folder into an open folder, to which other jobs may write too.

    Links are copied as links. `makes_accessible` gives the owner all permissions on each folder of
    the source; without it the source stays as it is. Raises `OSError`, and `OutputError` at the end
    if there are other kinds of files, such as pipes.
    """
    pending, failed = [(source, name)], []
    while pending:
        path, copy = pending.pop()
        parent, _, own_name = copy.rpartition("/")
        number = open_beneath(f"/proc/self/fd/{folder}", parent or ".", os.O_PATH | os.O_DIRECTORY)
        try:
            if path.is_symlink():
                os.symlink(path.readlink(), own_name, dir_fd=number)
            elif path.is_dir():
                if makes_accessible:
                    make_accessible(path)
                mode = stat.S_IMODE(path.stat().st_mode) | stat.S_IRWXU
                os.mkdir(own_name, mode, dir_fd=number)
                pending += [(inner, f"{copy}/{inner.name}") for inner in path.iterdir()]
            elif path.is_file():
                _copy_file(path, number, own_name)
            else:
                failed.append(str(path))
        finally:
            os.close(number)
    if failed:
        raise OutputError(f"{', '.join(failed)} cannot be copied.")


def _copy_file(source: Path, folder: int, name: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with (
        source.open("rb") as reading,
        open(os.open(name, flags, 0o600, dir_fd=folder), "wb") as writing,
    ):
        shutil.copyfileobj(reading, writing)
        found = os.fstat(reading.fileno())
        os.fchmod(writing.fileno(), stat.S_IMODE(found.st_mode))
        writing.flush()
        os.utime(writing.fileno(), ns=(found.st_atime_ns, found.st_mtime_ns))


def make_accessible(path: Path) -> None:
    """Give the owner all permissions on a folder; other files stay as they are."""
    if path.is_dir() and not path.is_symlink():
        path.chmod(stat.S_IMODE(path.lstat().st_mode) | stat.S_IRWXU)
