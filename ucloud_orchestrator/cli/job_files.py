"""Job files: YAML or JSON, with bounds, and every mistake in a sentence."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import yaml
from pydantic_core import from_json
from yaml.constructor import SafeConstructor

from ucloud_orchestrator.catalog.yaml import YamlError, compose, read_text
from ucloud_orchestrator.cli.job_file import InvalidJobFile, read_specifications
from ucloud_orchestrator.models.job import JobSpecification
from ucloud_orchestrator.models.parameter_values import MAXIMUM_DIGITS

_TEXT = "tag:yaml.org,2002:str"
_WRONG_SCALAR = (ValueError, ArithmeticError, LookupError, AttributeError, TypeError)
"""What PyYAML raises for a scalar that is not of its own tag, such as `!!int many`, or a date in a
thirteenth month.
"""


def read_file(file: Path) -> list[JobSpecification]:
    """The jobs of a file. Raises `InvalidJobFile` with a sentence for each mistake."""
    try:
        document = _document(read_text(file))
    except OSError as error:
        raise InvalidJobFile([f"The file {file} cannot be read: {error.strerror}."]) from error
    except YamlError as mistake:
        raise InvalidJobFile(
            [f"The file {file} cannot be read at line {mistake.line}: {mistake}"]
        ) from mistake
    return read_specifications(document)


def _document(text: str) -> Any:
    """Raises `YamlError`."""
    if text.lstrip()[:1] in {"{", "["}:
        with contextlib.suppress(
            ValueError
        ):  # YAML may begin so, too, and tells the line of a mistake
            # Not all JSON is YAML: halves of a character, as many programs write what is not ASCII,
            # are not.
            return from_json(text, allow_inf_nan=False)
    documents = list(compose(text))
    if len(documents) > 1:
        raise YamlError(
            documents[1].start_mark.line + 1, "a second document begins; several jobs are one list."
        )
    try:
        return _Constructor().construct_document(documents[0]) if documents else None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise YamlError(line, f"this is no plain value: {error.problem}.") from error


class _Constructor(SafeConstructor):
    """Only plain values."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Raises `YamlError`."""
        line = node.start_mark.line + 1
        is_text = not isinstance(node, yaml.ScalarNode) or node.tag == _TEXT
        if not is_text and len(node.value) > MAXIMUM_DIGITS:
            raise YamlError(line, f"a number may have {MAXIMUM_DIGITS} digits at most.")
        try:
            return super().construct_object(node, deep)
        except _WRONG_SCALAR as error:
            raise YamlError(line, f"this is no {node.tag.rpartition(':')[2]}: {error}.") from error
