"""Read YAML and keep the line and the written text of every value. JSON is YAML, too.

`version: 20.04` is the text `20.04`: names, versions and arguments stay as they were written.
Where a model has a number or a boolean, pydantic reads it from the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ucloud_orchestrator.models.errors import truncate

LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where PyYAML has it: ten times as fast."""
MAXIMUM_KEY = 60
"""Characters of a key that an error quotes."""

Location = tuple[int | str, ...]
"""The path of a value in its document, such as `("parameters", "p", "min")`."""


class YamlError(Exception):
    """The text cannot be read. `line` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class Document:
    """A document of a file: its value, its first line, and the line of each part."""

    value: Any
    line: int
    lines: dict[Location, int]

    def line_of(self, location: Location) -> int:
        """Return the line of the innermost part of `location` that the document has."""
        while location not in self.lines and location:
            location = location[:-1]
        return self.lines.get(location, self.line)


def read_text(file: Path) -> str:
    """Read a file. Raises `OSError`, or `YamlError` if it is not UTF-8."""
    data = file.read_bytes()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise YamlError(line, f"this is not text in UTF-8: {error.reason}.") from error


def read_documents(text: str) -> Iterator[Document]:
    """Read the documents of a YAML text, except empty ones.

    Raises `YamlError`, also for a key that is there twice.
    """
    for node in _compose(text):
        lines: dict[Location, int] = {}
        line = _line(node.start_mark)
        try:
            value = _value(node, (), lines)
        except RecursionError as error:
            raise YamlError(line, "an alias stands inside of what it names.") from error
        if value is not None:
            yield Document(value, line, lines)


def _compose(text: str) -> Iterator[yaml.Node]:
    """Parse a YAML text into the root nodes of its documents. Raises `YamlError`."""
    try:
        yield from (node for node in yaml.compose_all(text, Loader=LOADER) if node is not None)
    except yaml.MarkedYAMLError as error:
        raise YamlError(_line(error.problem_mark), f"this is not YAML: {error.problem}.") from error
    except yaml.YAMLError as error:
        raise YamlError(1, f"this is not YAML: {' '.join(str(error).split())}.") from error


def _value(node: yaml.Node, path: Location, lines: dict[Location, int]) -> Any:
    lines[path] = _line(node.start_mark)
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            if key in mapping:
                message = f"the key {truncate(key, MAXIMUM_KEY)!r} stands here for the second time."
                raise YamlError(_line(key_node.start_mark), message)
            mapping[key] = _value(value_node, (*path, key), lines)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, index), lines) for index, item in enumerate(node.value)]
    return None if node.tag == "tag:yaml.org,2002:null" else str(node.value)


def _line(mark: Any) -> int:
    return mark.line + 1 if mark else 1
