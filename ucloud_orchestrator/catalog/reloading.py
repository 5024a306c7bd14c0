"""A catalog that follows its files: changes are seen without a restart, mistakes keep the last good
version.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from ucloud_orchestrator.catalog.catalog import Catalog, Severity
from ucloud_orchestrator.catalog.loader import FileContents, combine, read_file, yaml_files

log = logging.getLogger(__name__)

CHECK_INTERVAL = 1.0
"""Seconds between two looks at the files; a job does not wait for more than a few `stat` calls."""

Stamp = tuple[int, int, int]


class ReloadingCatalog:
    """The catalog of a folder as it is now.

    Raises `NotADirectoryError` if there is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stamps: dict[Path, Stamp] = {}
        self._files: dict[Path, FileContents] = {}
        self._catalog = Catalog()
        self._checked = time.monotonic()
        self._read()

    @property
    def current(self) -> Catalog:
        """The catalog, read anew if a file has changed."""
        if time.monotonic() - self._checked >= CHECK_INTERVAL:
            self._checked = time.monotonic()
            try:
                self._read()
            except OSError as error:
                log.error("The catalog stays as it was: %s", error)
        return self._catalog

    def _read(self) -> None:
        stamps = {file: _stamp(file) for file in yaml_files(self._folder)}
        if stamps == self._stamps:
            return
        files: dict[Path, FileContents] = {}
        for file, stamp in stamps.items():
            if self._stamps.get(file) == stamp:
                files[file] = self._files[file]
                continue
            contents = read_file(file)
            for problem in contents.problems:
                log.log(
                    logging.ERROR if problem.severity is Severity.ERROR else logging.WARNING,
                    "%s",
                    problem,
                )
            is_broken = any(problem.severity is Severity.ERROR for problem in contents.problems)
            files[file] = self._files[file] if is_broken and file in self._files else contents
        self._stamps, self._files, self._catalog = stamps, files, combine(files)


def _stamp(file: Path) -> Stamp:
    status = file.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino
