"""Virtual environments of chosen distributions, made offline from those that are installed here."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


class Environment:
    """An environment with the wheel and the libraries of some of its extras, and nothing else."""

    def __init__(self, folder: Path, wheel: Path, extras: tuple[str, ...] = ()) -> None:
        self._bin = folder / "bin"
        _run(sys.executable, "-m", "venv", "--without-pip", str(folder))
        site_packages = next(folder.glob("lib/python*/site-packages"))
        for distribution in closure(wheel, extras):
            _link(distribution, site_packages)
        pip = (sys.executable, "-m", "pip", "--python", str(self.python))
        _run(*pip, "install", "--quiet", "--no-index", "--no-deps", str(wheel))

    @property
    def python(self) -> Path:
        return self._bin / "python"

    def run(
        self, *command: str, folder: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, without any variable but those that are given."""
        return subprocess.run(
            [str(self._bin / command[0]), *command[1:]],
            cwd=folder or self._bin.parent,
            env={"HOME": str(self._bin.parent), **variables},
            capture_output=True,
            text=True,
            timeout=60,
        )


def closure(wheel: Path, extras: tuple[str, ...]) -> list[metadata.Distribution]:
    """Return the installed distributions that the wheel needs with these extras."""
    (project,) = metadata.distributions(path=[str(wheel)])
    found: dict[str, metadata.Distribution] = {}
    pending = _required(project, ("", *extras))
    visited = set(pending)
    while pending:
        name, extra = pending.pop()
        distribution = found.setdefault(name, metadata.distribution(name))
        required = _required(distribution, (extra,)) - visited
        pending |= required
        visited |= required
    return list(found.values())


def _required(distribution: metadata.Distribution, extras: tuple[str, ...]) -> set[tuple[str, str]]:
    """Return the names that a distribution requires directly, each with "" and its extras."""
    requirements = [Requirement(text) for text in distribution.requires or []]
    return {
        (canonicalize_name(requirement.name), extra_of_it)
        for requirement in requirements
        for extra in extras
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        for extra_of_it in ("", *requirement.extras)
    }


def _link(distribution: metadata.Distribution, site_packages: Path) -> None:
    for file in distribution.files or []:
        if ".." in file.parts or file.suffix in {".pyc", ".pth"}:
            continue
        target = site_packages / file
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            target.symlink_to(Path(str(file.locate())).resolve())


def _run(*command: str) -> None:
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
