"""What an application or a tool must keep to beyond the types of its fields."""

from __future__ import annotations

from collections.abc import Iterator

from ucloud_orchestrator.models.application import (
    Application,
    ApplicationType,
    BooleanParameter,
    EnvironmentInvocation,
    FlagInvocation,
    InvocationParameter,
    NumberParameter,
    Tool,
    ToolBackend,
    VariableInvocation,
)
from ucloud_orchestrator.models.defaults import UnreadableDefault, default_of

Mistake = tuple[tuple[int | str, ...], str]
"""The path of the part that is wrong, and a sentence."""


def application_mistakes(application: Application) -> Iterator[Mistake]:
    """What is wrong with an application taken alone."""
    if application.application_type is ApplicationType.WEB and application.web is None:
        yield (
            ("applicationType",),
            "a WEB application needs 'web' with the port that it listens on.",
        )
    if application.application_type is ApplicationType.VNC and application.vnc is None:
        yield ("applicationType",), "a VNC application needs 'vnc'."
    for index, item in enumerate(application.invocation):
        if isinstance(item, EnvironmentInvocation):
            yield ("invocation", index), "an item of type env belongs into 'environment'."
        yield from _reference_mistakes(application, item, ("invocation", index))
    for name, item in application.environment.items():
        yield from _reference_mistakes(application, item, ("environment", name))
    for name, parameter in application.parameters.items():
        location = ("parameters", name)
        if isinstance(parameter, NumberParameter) and None not in (parameter.min, parameter.max):
            assert parameter.min is not None
            assert parameter.max is not None
            if parameter.min > parameter.max:
                yield location, f"the parameter {name!r} has a min above its max."
        try:
            default_of(parameter)
        except UnreadableDefault as error:
            yield (
                (*location, "defaultValue"),
                f"the default of the parameter {name!r} cannot be used: {error}.",
            )


def tool_mistakes(tool: Tool) -> Iterator[Mistake]:
    """What is wrong with a tool taken alone."""
    if tool.backend is ToolBackend.DOCKER and not (tool.container or tool.image):
        yield ("backend",), "a DOCKER tool needs 'container' or 'image'."


def _reference_mistakes(
    application: Application, item: InvocationParameter, location: tuple[int | str, ...]
) -> Iterator[Mistake]:
    names: list[str] = []
    if isinstance(item, VariableInvocation):
        names = item.vars
    elif isinstance(item, FlagInvocation):
        names = [item.var]
        parameter = application.parameters.get(item.var)
        if parameter is not None and not isinstance(parameter, BooleanParameter):
            yield (
                location,
                f"the flag {item.flag!r} needs a boolean parameter, and {item.var!r} is none.",
            )
    for name in names:
        if name not in application.parameters:
            yield location, f"there is no parameter {name!r}."
