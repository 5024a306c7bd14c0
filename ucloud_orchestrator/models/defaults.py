"""Parse the default of an application's parameter into a parameter value."""

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

TYPES_WITHOUT_DEFAULT = frozenset(
    {"input_file", "input_directory", "peer", "license_server", "ingress", "network_ip"}
)
"""Types that refer to resources of a user, which an application cannot choose."""


class InvalidDefault(ValueError):
    """The default does not fit its parameter: a mistake in the catalog."""


def parse_default(parameter: ApplicationParameter) -> AppParameterValue | None:
    """Parse the default, given as a bare value or as `{type, value}`. Raises `InvalidDefault`."""
    default = parameter.default_value
    if default is None:
        return None
    if parameter.type in TYPES_WITHOUT_DEFAULT:
        raise InvalidDefault(f"a parameter of type {parameter.type} cannot have a default")
    bare = default.get("value") if isinstance(default, dict) else default
    document = {"type": VALUE_TYPES[parameter.type], "value": _convert(parameter.type, bare)}
    try:
        value = AppParameterValue.model_validate(document)
    except ValidationError as error:
        raise InvalidDefault(" ".join(error_messages(error, document))) from error
    if isinstance(parameter, EnumerationParameter):
        choices = {text for option in parameter.options for text in (option.name, option.value)}
        if document["value"] not in choices:
            raise InvalidDefault(f"{document['value']!r} is none of its options")
    return value


def _convert(parameter_type: str, bare: Any) -> Any:
    """Convert a scalar to the parameter's type: the catalog has numbers and booleans as text."""
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
