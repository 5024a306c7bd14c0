"""From a user's path to a file of this machine that never lies outside its drive."""

from __future__ import annotations

from pathlib import Path


class OutsideDrive(ValueError):
    """The path leads out of its drive, or to the drive itself."""


def split(path: str) -> tuple[str, str]:
    """`/drive/some/file` as the drive's id and the path in it."""
    drive, _, inside = path.strip("/").partition("/")
    return drive, inside


def resolve_inside(folder: Path, inside: str) -> Path:
    """The existing file or folder at that path of a drive; links are followed first.

    Raises `FileNotFoundError`, or `OutsideDrive` for a link or a path that leads out of the folder.
    """
    root = folder.resolve()
    try:
        target = (root / inside).resolve(strict=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise FileNotFoundError(inside) from error
    if target == root or not target.is_relative_to(root):
        raise OutsideDrive(inside)
    return target
