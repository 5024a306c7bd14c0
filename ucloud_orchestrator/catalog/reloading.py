"""Reload a catalog when its files change, without a restart."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from ucloud_orchestrator.catalog.catalog import Catalog, Severity
from ucloud_orchestrator.catalog.loader import FileContents, combine, read_file, yaml_files

log = logging.getLogger(__name__)

CHECK_INTERVAL = 1.0
"""Seconds between two checks of the files; a check is one `stat` per file."""

Stamp = tuple[int, int, int]
"""Modification time, size and inode of a file."""


class ReloadingCatalog:
    """The current catalog of a folder. A file with errors keeps its last valid contents.

    Raises `NotADirectoryError`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stamps: dict[Path, Stamp] = {}
        self._files: dict[Path, FileContents] = {}
        self._catalog = Catalog()
        self._checked_at = time.monotonic()
        self._reload()

    @property
    def current(self) -> Catalog:
        """Return the catalog; changed files are read first."""
        if time.monotonic() - self._checked_at >= CHECK_INTERVAL:
            self._checked_at = time.monotonic()
            try:
                self._reload()
            except OSError as error:
                log.error("The catalog stays as it was: %s", error)
        return self._catalog

    def _reload(self) -> None:
        stamps = {file: _stamp(file) for file in yaml_files(self._folder)}
        if stamps == self._stamps:
            return
        self._files = {
            file: self._files[file] if self._stamps.get(file) == stamp else self._read(file)
            for file, stamp in stamps.items()
        }
        self._stamps, self._catalog = stamps, combine(self._files)

    def _read(self, file: Path) -> FileContents:
        """Read a file and log its problems. With an error, return its contents of before."""
        contents = read_file(file)
        has_error = False
        for problem in contents.problems:
            is_error = problem.severity is Severity.ERROR
            has_error |= is_error
            log.log(logging.ERROR if is_error else logging.WARNING, "%s", problem)
        return self._files.get(file, contents) if has_error else contents


def _stamp(file: Path) -> Stamp:
    status = file.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino
