"""YAML from a file as nodes, with bounds that hold before anything is built from them.

A few lines of YAML can be more than a machine has: aliases of aliases double, brackets nest without
end, and what a parser does with both is time and memory. JSON is YAML, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

MAXIMUM_BYTES = 4 * 1024 * 1024
"""Of one file: four times what a request may have, and more than any catalog's file needs."""
MAXIMUM_DEPTH = 64
MAXIMUM_PARTS = 500_000
"""Values of one file, each alias counted as all that it stands for."""
LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where PyYAML has it, which is ten times as fast."""


class YamlError(Exception):
    """The text cannot be read. `line` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def read_text(file: Path) -> str:
    """The text of a file.

    Raises `YamlError` for one that is too large or not UTF-8, and `OSError`.
    """
    with file.open("rb") as opened:
        data = opened.read(MAXIMUM_BYTES + 1)
    if len(data) > MAXIMUM_BYTES:
        raise YamlError(
            1, f"the file is larger than {MAXIMUM_BYTES} bytes, which is the most that is read."
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise YamlError(line, f"this is no text in UTF-8: {error.reason}.") from error


def nodes(text: str) -> Iterator[yaml.Node]:
    """The roots of the text's documents, empty ones left out. Raises `YamlError`."""
    try:
        _check_bounds(text)
        yield from (node for node in yaml.compose_all(text, Loader=LOADER) if node is not None)
    except yaml.MarkedYAMLError as error:
        raise YamlError(_line(error.problem_mark), f"this is no YAML: {error.problem}.") from error
    except yaml.YAMLError as error:
        raise YamlError(1, f"this is no YAML: {' '.join(str(error).split())}.") from error


def _check_bounds(text: str) -> None:
    """Follow the parser's events, which nest nothing themselves."""
    parts = 0
    open_parts: list[tuple[str | None, int]] = []
    weights: dict[str | None, int] = {}
    heights: list[int] = []
    anchored_heights: dict[str | None, int] = {}
    for event in yaml.parse(text, Loader=LOADER):
        line = _line(event.start_mark)
        height = 0
        if isinstance(event, yaml.DocumentStartEvent):
            weights, anchored_heights = {}, {}
        elif isinstance(event, yaml.CollectionStartEvent):
            parts += 1
            open_parts.append((event.anchor, parts))
            heights.append(0)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_parts.pop()
            height = heights.pop() + 1
            if anchor is not None:
                weights[anchor], anchored_heights[anchor] = parts - before + 1, height
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in {anchor for anchor, _ in open_parts}:
                raise YamlError(line, f"the alias *{event.anchor} stands inside of what it names.")
            parts += weights.get(event.anchor, 1)
            height = anchored_heights.get(event.anchor, 0)
        elif isinstance(event, yaml.ScalarEvent):
            parts += 1
        if heights:
            heights[-1] = max(heights[-1], height)
        if parts > MAXIMUM_PARTS:
            raise YamlError(
                line,
                f"there are more than {MAXIMUM_PARTS} values, counting what aliases stand for.",
            )
        if len(open_parts) + height > MAXIMUM_DEPTH:
            raise YamlError(line, f"the document is nested more than {MAXIMUM_DEPTH} deep.")


def _line(mark: Any) -> int:
    return mark.line + 1 if mark else 1
