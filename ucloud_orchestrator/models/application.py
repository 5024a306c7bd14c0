"""Applications and tools: the parameters of a job, and the invocation that uses them.

From UCloud's documentation of applications (`application: v1`, `tool: v1`).
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal, Union

from pydantic import ConfigDict, Field, GetCoreSchemaHandler, field_validator
from pydantic_core import CoreSchema

from ucloud_orchestrator.models.base import ApiModel
from ucloud_orchestrator.models.job import NameAndVersion, SimpleDuration
from ucloud_orchestrator.models.product import BackendSupport, ComputeSupport


class ToolBackend(StrEnum):
    DOCKER = "DOCKER"
    VIRTUAL_MACHINE = "VIRTUAL_MACHINE"
    NATIVE = "NATIVE"

    def support_in(self, support: ComputeSupport) -> BackendSupport:
        """Return the features that the provider supports for tools of this backend."""
        return {
            ToolBackend.DOCKER: support.docker,
            ToolBackend.VIRTUAL_MACHINE: support.virtual_machine,
            ToolBackend.NATIVE: support.native,
        }[self]


class Tool(ApiModel):
    """The runtime environment of an application, such as a container image."""

    title: str
    name: str = Field(min_length=1, max_length=255)
    version: str = Field(min_length=1, max_length=255)
    authors: list[str]
    backend: ToolBackend
    default_max_time: SimpleDuration
    description: str | None = None
    container: str | None = None
    image: str | None = None
    default_number_of_nodes: int = Field(default=1, ge=1)
    required_modules: list[str] = Field(default_factory=list)
    license: str | None = None

    @field_validator("backend", mode="before")
    @classmethod
    def _accept_udocker(cls, backend: Any) -> Any:
        return ToolBackend.DOCKER if backend == "UDOCKER" else backend

    @property
    def reference(self) -> NameAndVersion:
        return NameAndVersion(name=self.name, version=self.version)


class ApplicationType(StrEnum):
    BATCH = "BATCH"
    WEB = "WEB"
    VNC = "VNC"


class ApplicationParameter(ApiModel):
    """A parameter of an application. Validation returns the subclass that `type` names."""

    model_config = ConfigDict(defer_build=True)

    type: str
    title: str | None = None
    description: str = ""
    optional: bool = False
    default_value: Any = None

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        if cls is ApplicationParameter:
            return handler.generate_schema(_AnyParameter)
        return handler(source)


class FileParameter(ApplicationParameter):
    type: Literal["input_file", "input_directory"]


class TextParameter(ApplicationParameter):
    type: Literal["text", "textarea"]


class NumberParameter(ApplicationParameter):
    type: Literal["integer", "floating_point"]
    min: Decimal | None = None
    max: Decimal | None = None
    step: Decimal | None = None
    unit_name: str | None = None


class BooleanParameter(ApplicationParameter):
    type: Literal["boolean"]
    true_value: str = "true"
    false_value: str = "false"


class EnumerationOption(ApiModel):
    """An option: `name` for users, `value` for the program."""

    name: str
    value: str


class EnumerationParameter(ApplicationParameter):
    type: Literal["enumeration"]
    options: list[EnumerationOption] = Field(min_length=1)


class PeerParameter(ApplicationParameter):
    type: Literal["peer"]
    suggested_application: str | None = None


class LicenseServerParameter(ApplicationParameter):
    type: Literal["license_server"]
    tagged: list[str] = Field(default_factory=list)


class BoundResourceParameter(ApplicationParameter):
    type: Literal["ingress", "network_ip"]


_AnyParameter = Annotated[
    Union[  # noqa: UP007 - a runtime union of classes for the discriminator
        FileParameter,
        TextParameter,
        NumberParameter,
        BooleanParameter,
        EnumerationParameter,
        PeerParameter,
        LicenseServerParameter,
        BoundResourceParameter,
    ],
    Field(discriminator="type"),
]
ApplicationParameter.model_rebuild(force=True)


class WordInvocation(ApiModel):
    """A literal argument. On the wire it may be the bare text."""

    type: Literal["word"] = "word"
    word: str


class VariableInvocation(ApiModel):
    type: Literal["var"] = "var"
    vars: list[str] = Field(min_length=1)
    prefix_global: str = ""
    suffix_global: str = ""
    prefix_variable: str = ""
    suffix_variable: str = ""
    is_prefix_variable_part_of_arg: bool = False
    is_suffix_variable_part_of_arg: bool = False

    @field_validator("vars", mode="before")
    @classmethod
    def _accept_one_name(cls, names: Any) -> Any:
        return [names] if isinstance(names, str) else names


class FlagInvocation(ApiModel):
    type: Literal["flag"] = "flag"
    var: str
    flag: str


class EnvironmentInvocation(ApiModel):
    type: Literal["env"] = "env"
    var: str


InvocationParameter = Annotated[
    Union[WordInvocation, VariableInvocation, FlagInvocation, EnvironmentInvocation],  # noqa: UP007
    Field(discriminator="type"),
]


def _invocation_of(item: Any) -> Any:
    if isinstance(item, bool):
        return {"type": "word", "word": str(item).lower()}
    if isinstance(item, (str, int, float)):
        return {"type": "word", "word": str(item)}
    return item


class ContainerDescription(ApiModel):
    change_working_directory: bool = True
    run_as_root: bool = False
    run_as_real_user: bool = False


class VncDescription(ApiModel):
    password: str | None = None
    port: int = Field(default=5900, ge=1, le=65535)


class WebDescription(ApiModel):
    port: int = Field(default=80, ge=1, le=65535)


class SshMode(StrEnum):
    OPTIONAL = "OPTIONAL"
    MANDATORY = "MANDATORY"
    DISABLED = "DISABLED"


class SshDescription(ApiModel):
    mode: SshMode = SshMode.DISABLED


class Application(ApiModel):
    title: str
    name: str = Field(min_length=1, max_length=255)
    version: str = Field(min_length=1, max_length=255)
    authors: list[str]
    description: str
    tool: NameAndVersion
    application_type: ApplicationType = ApplicationType.BATCH
    invocation: list[InvocationParameter] = Field(min_length=1)
    parameters: dict[str, ApplicationParameter] = Field(default_factory=dict)
    output_file_globs: list[str] = Field(default_factory=lambda: ["*"])
    environment: dict[str, InvocationParameter] = Field(default_factory=dict)
    tags: list[str] = Field(default_factory=list)
    website: str | None = None
    allow_additional_mounts: bool | None = None
    allow_additional_peers: bool = True
    allow_multi_node: bool = False
    allow_public_ip: bool = False
    allow_public_link: bool = False
    file_extensions: list[str] = Field(default_factory=list)
    license_servers: list[str] = Field(default_factory=list)
    container: ContainerDescription = ContainerDescription()
    vnc: VncDescription | None = None
    web: WebDescription | None = None
    ssh: SshDescription | None = None

    @field_validator("invocation", mode="before")
    @classmethod
    def _accept_bare_arguments(cls, items: Any) -> Any:
        return [_invocation_of(item) for item in items] if isinstance(items, list) else items

    @field_validator("environment", mode="before")
    @classmethod
    def _accept_bare_values(cls, items: Any) -> Any:
        return (
            {name: _invocation_of(item) for name, item in items.items()}
            if isinstance(items, dict)
            else items
        )

    @field_validator("environment", "parameters", "container", mode="before")
    @classmethod
    def _accept_null(cls, value: Any) -> Any:
        return {} if value is None else value

    @property
    def reference(self) -> NameAndVersion:
        return NameAndVersion(name=self.name, version=self.version)

    @property
    def accepts_additional_mounts(self) -> bool:
        """Check if files besides the parameters' may be mounted; BATCH rejects them by default."""
        if self.allow_additional_mounts is not None:
            return self.allow_additional_mounts
        return self.application_type is not ApplicationType.BATCH
