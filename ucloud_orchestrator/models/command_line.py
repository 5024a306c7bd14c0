"""From an application's invocation and a job's parameters to an argument list and environment
variables.

The rules are those of UCloud's documentation of applications ("Invocation"). An argument list never
passes through a shell, so a value is one argument whatever it holds.
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
from ucloud_orchestrator.models.defaults import default_of
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
"""Where a job finds its files."""

_NOTHING: Mapping[str, str] = {}


def build_command_line(
    application: Application,
    parameters: Mapping[str, AppParameterValue],
    licenses: Mapping[str, str] = _NOTHING,
) -> list[str]:
    """The arguments of the program, its name first.

    A parameter without a value falls back to its default. `licenses` gives `address:port/key` for a
    license's id. Raises `UnreadableDefault` if a default does not fit its parameter.
    """
    values = _values(application, parameters)
    arguments: list[str] = []
    for item in application.invocation:
        if not isinstance(
            item, EnvironmentInvocation
        ):  # only `environment` may read the environment
            arguments += _arguments(item, application, values, _NOTHING, licenses)
    return arguments


def build_environment(
    application: Application,
    parameters: Mapping[str, AppParameterValue],
    environ: Mapping[str, str] = _NOTHING,
    licenses: Mapping[str, str] = _NOTHING,
) -> dict[str, str]:
    """The environment variables that the application asks for, each with its arguments joined by
    one space.

    `environ` is the job's environment, from which an item of type `env` takes its value. Raises
    `UnreadableDefault`.
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
        value = parameters.get(name) or default_of(parameter)
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
                value_text(values[name], application.parameters[name], licenses)
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
        # The value itself stays even if it is empty; only an absent affix vanishes.
        arguments += [*filter(None, before), text, *filter(None, after)]
    arguments.append(item.suffix_global.strip())
    first = 0 if arguments[0] else 1
    return arguments[first:] if arguments[-1] else arguments[first:-1]


def value_text(
    value: AppParameterValue,
    parameter: ApplicationParameter,
    licenses: Mapping[str, str] = _NOTHING,
) -> str:
    """How a value stands in the command line; numbers in full, never with an exponent."""
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
        case BooleanValue(value=answer):
            if isinstance(parameter, BooleanParameter):
                return parameter.true_value if answer else parameter.false_value
            return str(answer).lower()
        case FileValue(path=path):
            return f"{WORK_FOLDER}/{basename(path.rstrip('/'))}"
        case PeerValue(hostname=hostname):
            return hostname
        case LicenseServerValue(id=license_id):
            return licenses.get(license_id, license_id)
        case IngressValue(id=bound_id) | NetworkValue(id=bound_id) | BlockStorageValue(id=bound_id):
            return bound_id
    raise TypeError(f"a value of type {value.type} has no text")
