"""Build a job's arguments and environment variables from its application's invocation.

The rules are from UCloud's documentation of applications ("Invocation"). Arguments never pass
through a shell, so a value is always one argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from posixpath import basename

from ucloud_orchestrator.models.application import (
    Application,
    ApplicationParameter,
    BooleanParameter,
    EnumerationParameter,
    EnvironmentInvocation,
    FlagInvocation,
    InvocationParameter,
    VariableInvocation,
    WordInvocation,
)
from ucloud_orchestrator.models.defaults import parse_default
from ucloud_orchestrator.models.parameter_values import (
    AppParameterValue,
    BlockStorageValue,
    BooleanValue,
    FileValue,
    FloatingPointValue,
    IngressValue,
    IntegerValue,
    LicenseServerValue,
    NetworkValue,
    PeerValue,
    TextValue,
)

WORK_FOLDER = "/work"
"""The mount point of a job's files."""

_EMPTY: Mapping[str, str] = {}


def build_command_line(
    application: Application,
    parameters: Mapping[str, AppParameterValue],
    licenses: Mapping[str, str] = _EMPTY,
) -> list[str]:
    """Return the program's name and its arguments.

    A parameter without a value has its default. `licenses` maps a license's id to
    `address:port/key`. Raises `InvalidDefault`.
    """
    values = _values(application, parameters)
    arguments: list[str] = []
    for item in application.invocation:
        # Only `environment` may read the environment.
        if not isinstance(item, EnvironmentInvocation):
            arguments += _arguments(item, application, values, _EMPTY, licenses)
    return arguments


def build_environment(
    application: Application,
    parameters: Mapping[str, AppParameterValue],
    environ: Mapping[str, str] = _EMPTY,
    licenses: Mapping[str, str] = _EMPTY,
) -> dict[str, str]:
    """Return the application's environment variables; arguments of one are joined by a space.

    An item of type `env` has its value from `environ`, the job's environment. Raises
    `InvalidDefault`.
    """
    values = _values(application, parameters)
    return {
        name: " ".join(_arguments(item, application, values, environ, licenses))
        for name, item in application.environment.items()
    }


def _values(
    application: Application, parameters: Mapping[str, AppParameterValue]
) -> dict[str, AppParameterValue]:
    values = {}
    for name, parameter in application.parameters.items():
        value = parameters.get(name) or parse_default(parameter)
        if value is not None:
            values[name] = value
    return values


def _arguments(
    item: InvocationParameter,
    application: Application,
    values: Mapping[str, AppParameterValue],
    environ: Mapping[str, str],
    licenses: Mapping[str, str],
) -> list[str]:
    match item:
        case WordInvocation(word=word):
            return [word]
        case FlagInvocation(var=name, flag=flag):
            value = values.get(name)
            return [flag.strip()] if isinstance(value, BooleanValue) and value.value else []
        case EnvironmentInvocation(var=name):
            return [environ[name]] if name in environ else []
        case VariableInvocation():
            texts = [
                format_value(values[name], application.parameters[name], licenses)
                for name in item.vars
                if name in values
            ]
            return _with_affixes(item, texts) if texts else []


def _with_affixes(item: VariableInvocation, texts: list[str]) -> list[str]:
    prefix, suffix = item.prefix_variable.strip(), item.suffix_variable.strip()
    arguments = [item.prefix_global.strip()]
    for text in texts:
        before, after = [prefix], [suffix]
        if item.is_prefix_variable_part_of_arg:
            text, before = prefix + text, []
        if item.is_suffix_variable_part_of_arg:
            text, after = text + suffix, []
        # An empty value is an argument, an empty affix is not.
        arguments += [*filter(None, before), text, *filter(None, after)]
    arguments.append(item.suffix_global.strip())
    first = 0 if arguments[0] else 1
    return arguments[first:] if arguments[-1] else arguments[first:-1]


def format_value(
    value: AppParameterValue,
    parameter: ApplicationParameter,
    licenses: Mapping[str, str] = _EMPTY,
) -> str:
    """Format a value as an argument; numbers in full, never with an exponent."""
    match value:
        case TextValue(value=text):
            if isinstance(parameter, EnumerationParameter):
                return next(
                    (option.value for option in parameter.options if option.name == text), text
                )
            return text
        case IntegerValue(value=number):
            return str(number)
        case FloatingPointValue(value=decimal):
            return format(decimal, "f")
        case BooleanValue(value=is_true):
            if isinstance(parameter, BooleanParameter):
                return parameter.true_value if is_true else parameter.false_value
            return str(is_true).lower()
        case FileValue(path=path):
            return f"{WORK_FOLDER}/{basename(path.rstrip('/'))}"
        case PeerValue(hostname=hostname):
            return hostname
        case LicenseServerValue(id=license_id):
            return licenses.get(license_id, license_id)
        case IngressValue(id=id_) | NetworkValue(id=id_) | BlockStorageValue(id=id_):
            return id_
    raise TypeError(f"a value of type {value.type} has no text")
