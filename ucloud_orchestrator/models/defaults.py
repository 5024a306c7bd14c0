"""The default of an application's parameter, as the value that a user could have given."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from ucloud_orchestrator.models.application import ApplicationParameter, EnumerationParameter
from ucloud_orchestrator.models.base import error_messages
from ucloud_orchestrator.models.parameter_values import AppParameterValue

VALUE_TYPES = {
    "input_file": "file",
    "input_directory": "file",
    "text": "text",
    "textarea": "text",
    "integer": "integer",
    "floating_point": "floating_point",
    "boolean": "boolean",
    "enumeration": "text",
    "peer": "peer",
    "license_server": "license_server",
    "ingress": "ingress",
    "network_ip": "network",
}
"""Which type of value each type of parameter takes."""

WITHOUT_DEFAULT = frozenset(
    {"input_file", "input_directory", "peer", "license_server", "ingress", "network_ip"}
)
"""Parameters that name something of the user's own, so that no application can choose it for him.
"""


class UnreadableDefault(ValueError):
    """The application's author gave a default that its parameter cannot take."""


def default_of(parameter: ApplicationParameter) -> AppParameterValue | None:
    """The parameter's default, which is written bare or as `{type, value}`.

    Raises `UnreadableDefault`.
    """
    written = parameter.default_value
    if written is None:
        return None
    if parameter.type in WITHOUT_DEFAULT:
        raise UnreadableDefault(f"a parameter of type {parameter.type} cannot have a default")
    bare = written.get("value") if isinstance(written, dict) else written
    document = {"type": VALUE_TYPES[parameter.type], "value": _converted(parameter.type, bare)}
    try:
        value = AppParameterValue.model_validate(document)
    except ValidationError as error:
        raise UnreadableDefault(" ".join(error_messages(error, document))) from error
    if isinstance(parameter, EnumerationParameter):
        choices = {text for option in parameter.options for text in (option.name, option.value)}
        if document["value"] not in choices:
            raise UnreadableDefault(f"{document['value']!r} is none of its options")
    return value


def _converted(parameter_type: str, bare: Any) -> Any:
    """YAML scalars as the parameter means them: the catalog keeps the text of numbers as it was
    written.
    """
    if parameter_type in {"text", "textarea", "enumeration"}:
        return str(bare)
    if isinstance(bare, str) and parameter_type == "integer":
        try:
            return int(bare)
        except ValueError:
            return bare
    if isinstance(bare, str) and parameter_type == "boolean":
        return {"true": True, "false": False}.get(bare.lower(), bare)
    return bare
