"""Parse the metrics of a process as Prometheus does."""

from __future__ import annotations

import re
from dataclasses import dataclass

import httpx

SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:]\w*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Sample:
    """One sample."""

    name: str
    labels: dict[str, str]
    value: float


class Scrape:
    """All samples of one scrape."""

    def __init__(self, text: str) -> None:
        found = [
            SAMPLE.fullmatch(line)
            for line in text.splitlines()
            if line and not line.startswith("#")
        ]
        assert found
        assert all(found), text
        self._samples = [
            Sample(match["name"], dict(LABEL.findall(match["labels"] or "")), float(match["value"]))
            for match in found
            if match
        ]

    @classmethod
    def of(cls, port: int) -> Scrape:
        """Scrape the process at that port."""
        return cls(httpx.get(f"http://127.0.0.1:{port}/metrics").text)

    @property
    def names(self) -> set[str]:
        """The names of all samples."""
        return {sample.name for sample in self._samples}

    def labels(self, name: str) -> set[str]:
        """Return the labels of the samples of that name."""
        return {label for sample in self._samples if sample.name == name for label in sample.labels}

    def sum(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of that name with these labels."""
        return sum(
            sample.value
            for sample in self._samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )
