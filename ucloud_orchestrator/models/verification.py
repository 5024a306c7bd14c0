"""Verify a job's specification against its application, tool and product.

The rules are from UCloud's documentation of applications and jobs. `resource_verification` and
the store verify what needs a file system or a database: files, owners, claims and funds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from posixpath import basename

from ucloud_orchestrator.models.application import (
    Application,
    ApplicationParameter,
    EnumerationParameter,
    NumberParameter,
    SshMode,
    Tool,
)
from ucloud_orchestrator.models.defaults import VALUE_TYPES, InvalidDefault, parse_default
from ucloud_orchestrator.models.errors import ErrorCode, Finding
from ucloud_orchestrator.models.job import JobSpecification
from ucloud_orchestrator.models.parameter_values import (
    RESOURCE_TYPES,
    AppParameterValue,
    FileValue,
    FloatingPointValue,
    IntegerValue,
    PeerValue,
    TextValue,
)
from ucloud_orchestrator.models.product import ComputeSupport, Product


def verify(
    specification: JobSpecification,
    application: Application | None,
    tool: Tool | None,
    product: Product | None,
    support: ComputeSupport | None,
) -> list[Finding]:
    """Find all mistakes of a specification.

    `application`, `tool`, `product` and `support` are the catalog's entries that the job refers
    to; None if there is no such entry.
    """
    return [
        *_catalog_findings(specification, application, tool, product, support),
        *_common_findings(specification),
        *(_application_findings(specification, application) if application else ()),
    ]


def complete(
    specification: JobSpecification, application: Application, tool: Tool
) -> JobSpecification:
    """Fill in the defaults of the parameters and of the time allocation.

    Raises `InvalidDefault`.
    """
    parameters = dict(specification.parameters)
    for name, parameter in application.parameters.items():
        if name not in parameters and (default := parse_default(parameter)) is not None:
            parameters[name] = default
    return specification.model_copy(
        update={
            "parameters": parameters,
            "time_allocation": specification.time_allocation or tool.default_max_time,
        }
    )


def _catalog_findings(
    specification: JobSpecification,
    application: Application | None,
    tool: Tool | None,
    product: Product | None,
    support: ComputeSupport | None,
) -> Iterator[Finding]:
    if application is None:
        yield _finding("application", f"There is no application {specification.application}.")
    elif tool is None:
        yield _finding(
            "application",
            f"The tool {application.tool} of {application.reference} is not in the catalog.",
        )
    if product is None:
        yield _finding("product", f"There is no product {specification.product}.")
    elif tool is not None:
        backend = tool.backend.support_in(support or ComputeSupport())
        if not backend.enabled:
            yield Finding(
                field="product",
                message=f"The product {specification.product} does not run applications of type "
                f"{tool.backend}.",
                code=ErrorCode.FEATURE_NOT_SUPPORTED_BY_PROVIDER,
            )
        elif not backend.peers and any(
            isinstance(value, PeerValue) for value in _values(specification)
        ):
            yield Finding(
                field="product",
                message=f"On the product {specification.product} jobs cannot connect to other "
                "jobs.",
                code=ErrorCode.FEATURE_NOT_SUPPORTED_BY_PROVIDER,
            )


def _values(specification: JobSpecification) -> list[AppParameterValue]:
    return [*specification.parameters.values(), *specification.resources]


def _common_findings(specification: JobSpecification) -> Iterator[Finding]:
    for index, resource in enumerate(specification.resources):
        if resource.type not in RESOURCE_TYPES:
            yield _finding(
                f"resources[{index}]",
                f"A value of type {resource.type} is a parameter; it cannot be a resource.",
            )
    values = _values(specification)
    names = Counter(
        basename(value.path.rstrip("/")) for value in values if isinstance(value, FileValue)
    )
    for name, count in names.items():
        if count > 1:
            yield _finding(
                "resources",
                f"{count} files are named {name!r}, but each needs its own name below /work.",
            )
        if not name:
            yield _finding(
                "resources", "A whole drive cannot be mounted; name a file or a folder in it."
            )
    hostnames = Counter(value.hostname for value in values if isinstance(value, PeerValue))
    for hostname, count in hostnames.items():
        if count > 1:
            yield _finding(
                "resources", f"{count} peers have the host name {hostname!r}; each needs its own."
            )


def _application_findings(
    specification: JobSpecification, application: Application
) -> Iterator[Finding]:
    if specification.replicas > 1 and not application.allow_multi_node:
        yield _finding(
            "replicas",
            f"{application.reference} runs with 1 replica, not {specification.replicas}.",
        )
    mounts = [value for value in specification.resources if isinstance(value, FileValue)]
    if mounts and not application.accepts_additional_mounts:
        yield _finding(
            "resources", f"{application.reference} takes no files besides its parameters."
        )
    if (
        any(isinstance(value, PeerValue) for value in specification.resources)
        and not application.allow_additional_peers
    ):
        yield _finding("resources", f"{application.reference} takes no connections to other jobs.")
    has_ssh = application.ssh is not None and application.ssh.mode is not SshMode.DISABLED
    if specification.ssh_enabled and not has_ssh:
        yield _finding("sshEnabled", f"{application.reference} does not support SSH.")
    for name in specification.parameters:
        if name not in application.parameters:
            yield _finding(
                f"parameters.{name}", f"{application.reference} has no parameter {name!r}."
            )
    for name, parameter in application.parameters.items():
        yield from _parameter_findings(name, parameter, specification.parameters)


def _parameter_findings(
    name: str, parameter: ApplicationParameter, values: Mapping[str, AppParameterValue]
) -> Iterator[Finding]:
    field, value = f"parameters.{name}", values.get(name)
    if value is None:
        try:
            default = parse_default(parameter)
        except InvalidDefault as error:
            yield _finding(
                field,
                f"The default of the parameter {name!r} cannot be used: {error}; give a value.",
            )
            return
        if default is None and not parameter.optional:
            yield _finding(field, f"The parameter {name!r} is missing.")
        return
    expected = VALUE_TYPES[parameter.type]
    if value.type != expected:
        yield _finding(
            field,
            f"The parameter {name!r} takes a value of type {expected}, but one of type "
            f"{value.type} was given.",
        )
        return
    if isinstance(parameter, NumberParameter) and isinstance(
        value, (IntegerValue, FloatingPointValue)
    ):
        unit = f" {parameter.unit_name}" if parameter.unit_name else ""
        if parameter.min is not None and value.value < parameter.min:
            yield _finding(
                field,
                f"The parameter {name!r} must be at least {parameter.min}{unit}, not "
                f"{value.value}.",
            )
        if parameter.max is not None and value.value > parameter.max:
            yield _finding(
                field,
                f"The parameter {name!r} must be at most {parameter.max}{unit}, not {value.value}.",
            )
    if isinstance(parameter, EnumerationParameter) and isinstance(value, TextValue):
        choices = {text for option in parameter.options for text in (option.name, option.value)}
        if value.value not in choices:
            options = ", ".join(repr(option.value) for option in parameter.options)
            yield _finding(
                field, f"The parameter {name!r} must be one of {options}, not {value.value!r}."
            )


def _finding(field: str, message: str) -> Finding:
    return Finding(field=field, message=message)
