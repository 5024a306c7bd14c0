"""The base of every model that crosses a process border, and how its mistakes become sentences."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

MAXIMUM_PATH = 120
MAXIMUM_TEXT = 300
MAXIMUM_SHOWN = 60
"""Characters of the parts of a sentence; what is wrong may be of any size."""


class ApiModel(BaseModel):
    """A model whose JSON names are camelCase and whose Python names are snake_case.

    Unknown fields are tolerated, because a newer UCloud or provider may send more than we know. A
    user's own file is read with `extra="forbid"` instead (see `cli.job_file`), so that a
    misspelt field is told to its author.
    """

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True
    )

    def to_wire(self) -> dict[str, Any]:
        """The JSON form: camelCase names, plain values, fields without a value left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def error_messages(error: ValidationError, document: Any = None) -> list[str]:
    """One sentence for each wrong field of a validation error, which names the field the way its
    author wrote it.

    `document` is what was read; with it, the tags that pydantic puts into the location of a union
    are left out.
    """
    return [
        _sentence(
            _written_location(detail["loc"], document),
            detail["type"],
            detail["msg"],
            detail.get("input"),
        )
        for detail in error.errors()
    ]


def field_path(location: Iterable[int | str]) -> str:
    """`("resources", 1, "path")` as `resources[1].path`."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else str(part)
    return path


def _sentence(location: list[int | str], kind: str, message: str, given: Any) -> str:
    where = on_one_line(field_path(location), MAXIMUM_PATH) or "the document"
    if kind == "missing":
        return f"{where} is missing."
    if kind == "extra_forbidden":
        return f"{where} is not a known field."
    text = on_one_line(message.removeprefix("Value error, "), MAXIMUM_TEXT).rstrip(".")
    text = text[:1].lower() + text[1:]
    shown = _shown(given)
    return f"{where}: {text}." if shown is None else f"{where}: {text}, but {shown} was given."


def _shown(given: Any) -> str | None:
    """What was given, if it is short; what is not may be larger than memory once it is written
    down.
    """
    if isinstance(given, int):
        is_short = given.bit_length() < MAXIMUM_SHOWN * 3
    elif isinstance(given, (str, bytes)):
        is_short = len(given) < MAXIMUM_SHOWN
    else:
        is_short = given is None or isinstance(given, float)
    shown = repr(given) if is_short else None
    return shown if shown is not None and len(shown) <= MAXIMUM_SHOWN else None


def on_one_line(text: str, length: int) -> str:
    """At most that many characters, none of which moves a cursor: what a file says of itself goes
    to a terminal.
    """
    cut = text if len(text) <= length else f"{text[:length]}…"
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in cut
    )


def _written_location(location: Iterable[int | str], document: Any) -> list[int | str]:
    parts = list(location)
    written: list[int | str] = []
    for index, part in enumerate(parts):
        is_last = index == len(parts) - 1
        if isinstance(document, dict):
            if part in document:
                document = document[part]
            elif not is_last:
                continue  # the tag of a union: no such key was written
        elif isinstance(document, list) and isinstance(part, int) and part < len(document):
            document = document[part]
        written.append(part)
    return written
