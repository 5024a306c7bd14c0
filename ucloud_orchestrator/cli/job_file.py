"""A user's job file: one specification or a list of them, with every mistake told at once."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from ucloud_orchestrator.models.base import error_messages
from ucloud_orchestrator.models.errors import MAXIMUM_FINDINGS
from ucloud_orchestrator.models.job import JobSpecification


class InvalidJobFile(ValueError):
    """The document is no job file. `sentences` has one for each mistake, which names the field."""

    def __init__(self, sentences: list[str]) -> None:
        super().__init__(" ".join(sentences))
        self.sentences = sentences


def read_specifications(document: Any) -> list[JobSpecification]:
    """The specifications of a parsed YAML or JSON document.

    Unknown fields are refused. Raises `InvalidJobFile`.
    """
    entries = document if isinstance(document, list) else [document]
    if not entries:
        raise InvalidJobFile(["The file has no job."])
    specifications, mistakes = [], []
    for index, entry in enumerate(entries):
        where = f"[{index}]" if isinstance(document, list) else ""
        if not isinstance(entry, dict):
            what = where or "The file"
            mistakes.append(
                f"{what}: a job must be a mapping of fields, such as 'application: ...'."
            )
            continue
        try:
            specifications.append(
                JobSpecification.model_validate(entry, extra="forbid", by_name=False)
            )
        except ValidationError as error:
            prefix = where and f"{where}."
            mistakes += [prefix + sentence for sentence in error_messages(error, entry)]
    if mistakes:
        more = len(mistakes) - MAXIMUM_FINDINGS
        raise InvalidJobFile(
            mistakes[:MAXIMUM_FINDINGS] + ([f"And {more} more."] if more > 0 else [])
        )
    return specifications
