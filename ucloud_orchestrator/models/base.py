"""The base of models that are sent between processes, and messages for its validation errors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

MAXIMUM_PATH = 120
MAXIMUM_TEXT = 300
MAXIMUM_SHOWN = 60
"""Characters of the parts of a message; an invalid value may be of any size."""


class ApiModel(BaseModel):
    """A model whose JSON names are camelCase and whose Python names are snake_case.

    Unknown fields are ignored: a newer UCloud or provider may send more. A user's own file is
    validated with `extra="forbid"` instead (`cli.job_file`), so that a misspelt field is an error.
    """

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True
    )

    def to_wire(self) -> dict[str, Any]:
        """Return the JSON form: camelCase names, plain values, no fields that are None."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def error_messages(error: ValidationError, document: Any = None) -> list[str]:
    """Return a sentence for each invalid field, with the path that the field has in the document.

    pydantic adds the tag of a union to a location. Tags are dropped if `document`, the input, is
    given.
    """
    return [
        _message(
            _document_location(detail["loc"], document),
            detail["type"],
            detail["msg"],
            detail.get("input"),
        )
        for detail in error.errors()
    ]


def field_path(location: Iterable[int | str]) -> str:
    """Format a location: `("resources", 1, "path")` is `resources[1].path`."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else str(part)
    return path


def _message(location: list[int | str], kind: str, message: str, given: Any) -> str:
    where = escape_unprintable(field_path(location), MAXIMUM_PATH) or "the document"
    if kind == "missing":
        return f"{where} is missing."
    if kind == "extra_forbidden":
        return f"{where} is not a known field."
    text = escape_unprintable(message.removeprefix("Value error, "), MAXIMUM_TEXT).rstrip(".")
    text = text[:1].lower() + text[1:]
    shown = _quote(given)
    return f"{where}: {text}." if shown is None else f"{where}: {text}, but {shown} was given."


def _quote(given: Any) -> str | None:
    """Return the `repr` of a short value, None for a long one: a `repr` may exceed memory."""
    if isinstance(given, int):
        is_short = given.bit_length() < MAXIMUM_SHOWN * 3
    elif isinstance(given, (str, bytes)):
        is_short = len(given) < MAXIMUM_SHOWN
    else:
        is_short = given is None or isinstance(given, float)
    shown = repr(given) if is_short else None
    return shown if shown is not None and len(shown) <= MAXIMUM_SHOWN else None


def escape_unprintable(text: str, length: int) -> str:
    """Truncate, and escape what a terminal would interpret: line breaks and control sequences."""
    cut = text if len(text) <= length else f"{text[:length]}…"
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in cut
    )


def _document_location(location: Iterable[int | str], document: Any) -> list[int | str]:
    parts = list(location)
    path: list[int | str] = []
    for index, part in enumerate(parts):
        is_last = index == len(parts) - 1
        if isinstance(document, dict):
            if part in document:
                document = document[part]
            elif not is_last:
                continue  # the tag of a union
        elif isinstance(document, list) and isinstance(part, int) and part < len(document):
            document = document[part]
        path.append(part)
    return path
