"""Validate what the types of the models cannot: one item, and references between items."""

from __future__ import annotations

from collections.abc import Iterator

from ucloud_orchestrator.catalog.catalog import Catalog, ProductEntry
from ucloud_orchestrator.catalog.yaml import Location
from ucloud_orchestrator.models.application import (
    Application,
    ApplicationParameter,
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
from ucloud_orchestrator.models.base import ApiModel
from ucloud_orchestrator.models.defaults import InvalidDefault, parse_default
from ucloud_orchestrator.models.workspace import Resource

Mistake = tuple[Location, str]
"""The path of the wrong value, and a sentence."""


def item_mistakes(item: ApiModel) -> Iterator[Mistake]:
    match item:
        case Application():
            yield from _application_mistakes(item)
        case Tool(backend=ToolBackend.DOCKER) if not (item.container or item.image):
            yield ("backend",), "a DOCKER tool needs 'container' or 'image'."


def reference_mistakes(item: ApiModel, catalog: Catalog) -> Iterator[Mistake]:
    match item:
        case Application(tool=tool) if tool not in catalog.tools:
            yield ("tool",), f"there is no tool {tool}."
        case ProductEntry() if item.category.provider not in catalog.provider_entries:
            yield ("category", "provider"), f"there is no provider {item.category.provider}."
        case Resource():
            if item.provider not in catalog.provider_entries:
                yield ("provider",), f"there is no provider {item.provider}."
            if item.owner is not None and item.owner.project not in {None, *catalog.projects}:
                yield ("owner",), f"there is no project {item.owner.project}."
            if item.owner is None and not item.public:
                yield (), "it needs an owner, or permissions that are public."


def _application_mistakes(application: Application) -> Iterator[Mistake]:
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
        yield from _invocation_mistakes(application, item, ("invocation", index))
    for name, item in application.environment.items():
        yield from _invocation_mistakes(application, item, ("environment", name))
    for name, parameter in application.parameters.items():
        yield from _parameter_mistakes(name, parameter)


def _invocation_mistakes(
    application: Application, item: InvocationParameter, location: Location
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


def _parameter_mistakes(name: str, parameter: ApplicationParameter) -> Iterator[Mistake]:
    location = ("parameters", name)
    if (
        isinstance(parameter, NumberParameter)
        and parameter.min is not None
        and parameter.max is not None
        and parameter.min > parameter.max
    ):
        yield location, f"the parameter {name!r} has a min above its max."
    try:
        parse_default(parameter)
    except InvalidDefault as error:
        message = f"the default of the parameter {name!r} cannot be used: {error}."
        yield (*location, "defaultValue"), message
