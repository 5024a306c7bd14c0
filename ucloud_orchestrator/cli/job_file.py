"""Reads a user's job file: one job or a list of jobs, in YAML or JSON."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import from_json

from ucloud_orchestrator.catalog.yaml import LOADER
from ucloud_orchestrator.models.base import error_messages
from ucloud_orchestrator.models.errors import MAXIMUM_FINDINGS, truncate
from ucloud_orchestrator.models.job import JobSpecification


class InvalidJobFile(ValueError):
    """Raised for a file that is not a job file. `sentences` has one for each mistake."""

    def __init__(self, *sentences: str) -> None:
        super().__init__(" ".join(sentences))
        self.sentences = list(sentences)


def read_job_file(file: Path) -> list[JobSpecification]:
    """Read the jobs of a file. Unknown fields are mistakes. Raises `InvalidJobFile`."""
    try:
        document = _parse(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidJobFile(f"The file {file} cannot be read: {error.strerror}.") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InvalidJobFile(
            f"The file {file} cannot be read at line {line}: this is not YAML: {error.problem}."
        ) from error
    except (yaml.YAMLError, ValueError) as error:
        reason = truncate(" ".join(str(error).split())).rstrip(".")
        raise InvalidJobFile(f"The file {file} cannot be read: {reason}.") from error
    return _validate(document)


def _parse(text: str) -> Any:
    if text.lstrip()[:1] in {"{", "["}:
        # Not all JSON is YAML: many programs write a character as two surrogates.
        with contextlib.suppress(ValueError):
            return from_json(text, allow_inf_nan=False)
    documents = [one for one in yaml.load_all(text, Loader=LOADER) if one is not None]
    if len(documents) > 1:
        raise ValueError(f"it has {len(documents)} documents; several jobs are one list")
    return documents[0] if documents else None


def _validate(document: Any) -> list[JobSpecification]:
    entries = document if isinstance(document, list) else [document]
    if not entries:
        raise InvalidJobFile("The file has no job.")
    specifications, mistakes = [], []
    for index, entry in enumerate(entries):
        where = f"[{index}]" if isinstance(document, list) else ""
        if not isinstance(entry, dict):
            mistakes.append(
                f"{where or 'The file'}: a job must be a mapping of fields, such as "
                "'application: ...'."
            )
            continue
        try:
            specifications.append(
                JobSpecification.model_validate(entry, extra="forbid", by_name=False)
            )
        except ValidationError as error:
            prefix = where and f"{where}."
            mistakes += [prefix + sentence for sentence in error_messages(error, entry)]
    if len(mistakes) > MAXIMUM_FINDINGS:
        more = len(mistakes) - MAXIMUM_FINDINGS
        mistakes = [*mistakes[:MAXIMUM_FINDINGS], f"And {more} more."]
    if mistakes:
        raise InvalidJobFile(*mistakes)
    return specifications
