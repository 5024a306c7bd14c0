"""Find the metrics in the files of `deploy/observability`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent.parent.parent / "deploy" / "observability"
SELECTOR = re.compile(r"\b([a-zA-Z_:][\w:]*)\s*(?:\{([^}]*)\})?(?!\w|\s*\()")
GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\([^)]*\)")
RANGE = re.compile(r"\[[^\]]*\]")
WORDS = {"and", "or", "unless", "bool", "offset"}


def alert_expressions() -> list[str]:
    """Return the expressions of all alerts."""
    groups = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def dashboard_expressions() -> list[str]:
    """Return the expressions of all panels, for every provider."""
    document = json.loads((FOLDER / "dashboard.json").read_text())
    return [expression.replace("$provider", ".*") for expression in _values(document, "expr")]


def metrics(expression: str) -> dict[str, set[str]]:
    """Return the metrics of a PromQL expression, each with the labels that it is filtered by."""
    found: dict[str, set[str]] = {}
    for name, matchers in SELECTOR.findall(RANGE.sub("", GROUPING.sub("", expression))):
        if name not in WORDS:
            found.setdefault(name, set()).update(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
    return found


def grouped_by(expression: str) -> set[str]:
    """Return the labels that an expression groups by."""
    return {
        label
        for grouping in GROUPING.findall(expression)
        for label in re.findall(r"\w+", grouping)[1:]
    }


def _values(document: Any, key: str) -> Iterator[str]:
    if isinstance(document, dict):
        for name, value in document.items():
            if name == key:
                yield value
            else:
                yield from _values(value, key)
    elif isinstance(document, list):
        for value in document:
            yield from _values(value, key)
