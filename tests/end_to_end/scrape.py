"""What Prometheus gets from a process."""

from __future__ import annotations

import re
from dataclasses import dataclass

import httpx

SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:]\w*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Sample:
    """One line."""

    name: str
    labels: dict[str, str]
    value: float


class Scrape:
    """All samples of one moment, by the names that Prometheus gives them."""

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
        """What the process at that port of the loopback tells now."""
        return cls(httpx.get(f"http://127.0.0.1:{port}/metrics").text)

    @property
    def names(self) -> set[str]:
        """Of every sample."""
        return {sample.name for sample in self._samples}

    def labels(self, name: str) -> set[str]:
        """Those that the samples of that name have."""
        return {label for sample in self._samples if sample.name == name for label in sample.labels}

    def sum(self, name: str, **labels: str) -> float:
        """The sum of all samples of that name and these labels."""
        return sum(
            sample.value
            for sample in self._samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )
