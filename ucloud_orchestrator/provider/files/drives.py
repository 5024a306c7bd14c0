"""The files of this machine for users' paths; they are never outside their drives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ucloud_orchestrator.models.job import Job
from ucloud_orchestrator.models.parameter_values import FileValue, split_path
from ucloud_orchestrator.process.paths import OutsideDrive, resolve_inside
from ucloud_orchestrator.provider.errors import InvalidPath


@dataclass(frozen=True)
class Mount:
    """A file or folder of a drive for a job; no part of `inside` is a link."""

    drive: Path
    inside: str
    is_read_only: bool


class Drives:
    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = {name: folder.resolve() for name, folder in folders.items()}

    def resolve(self, path: str) -> Path:
        """Return the file or folder of `/<drive>/<path in the drive>`. Raises `InvalidPath`.

        Links are followed first: one to a target outside the drive is rejected.
        """
        drive, inside = split_path(path)
        folder = self._folders.get(drive)
        if folder is None:
            raise InvalidPath(f"There is no drive {drive!r} for {path}.")
        try:
            return resolve_inside(folder, inside)
        except FileNotFoundError as error:
            raise InvalidPath(f"There is no file {path}.") from error
        except OutsideDrive as error:
            raise InvalidPath(f"{path} is not inside its drive.") from error

    def mounts(self, job: Job) -> dict[str, Mount]:
        """Return the mounts below `/work` by name. Raises `InvalidPath`."""
        mounts: dict[str, Mount] = {}
        for value in (*job.specification.parameters.values(), *job.specification.resources):
            if not isinstance(value, FileValue):
                continue
            name = value.path.rstrip("/").rpartition("/")[2]
            if name == ".":
                raise InvalidPath(f"{value.path} does not end in the name of a file.")
            if name in mounts:
                raise InvalidPath(f"Two files are named {name!r}.")
            source = self.resolve(value.path)
            drive = self._folders[split_path(value.path)[0]]
            mounts[name] = Mount(drive, str(source.relative_to(drive)), value.read_only)
        return mounts
