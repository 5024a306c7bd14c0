"""YAML as its author wrote it: numbers and booleans keep their text, and every value knows its
line.

`version: 20.04` is the text `20.04`, because names, versions and words of a command line must stay
what was written. Where a model wants a number or a boolean, pydantic reads it from the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from ucloud_orchestrator.catalog.yaml_source import YamlError, nodes
from ucloud_orchestrator.models.errors import truncate


@dataclass(frozen=True)
class Document:
    """A document of a file: its value, its first line, and the line of each part by its path."""

    value: Any
    line: int
    lines: dict[tuple[int | str, ...], int]

    def line_of(self, location: tuple[int | str, ...]) -> int:
        """The line of the innermost part of `location` that was written."""
        while location not in self.lines and location:
            location = location[:-1]
        return self.lines.get(location, self.line)


def documents(text: str) -> Iterator[Document]:
    """The documents of a YAML text, empty ones left out.

    Raises `YamlError`, also for a key that stands twice.
    """
    for node in nodes(text):
        lines: dict[tuple[int | str, ...], int] = {}
        value = _value(node, (), lines)
        if value is not None:
            yield Document(value, node.start_mark.line + 1, lines)


def _value(
    node: yaml.Node, path: tuple[int | str, ...], lines: dict[tuple[int | str, ...], int]
) -> Any:
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            if key in mapping:
                message = f"the key {truncate(key, 60)!r} stands here for the second time."
                raise YamlError(key_node.start_mark.line + 1, message)
            mapping[key] = _value(value_node, (*path, key), lines)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, index), lines) for index, item in enumerate(node.value)]
    return None if node.tag == "tag:yaml.org,2002:null" else str(node.value)
