"""Resolve paths inside a folder without leaving it."""

from __future__ import annotations

from pathlib import Path


class OutsideDrive(ValueError):
    """The path leads out of the folder, or to the folder itself."""


def resolve_inside(folder: Path, inside: str) -> Path:
    """Resolve the path of an existing file or folder below `folder`, following links.

    Raises `FileNotFoundError`, or `OutsideDrive` if the path or a link leads out of the folder.
    """
    root = folder.resolve()
    try:
        target = (root / inside).resolve(strict=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise FileNotFoundError(inside) from error
    if target == root or not target.is_relative_to(root):
        raise OutsideDrive(inside)
    return target
