"""The values of an application's parameters, and the resources that are attached to a job.

The types are from UCloud's documentation of parameters ("AppParameterValue").
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Literal, Union

from pydantic import (
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    StrictBool,
    StrictInt,
    field_serializer,
    field_validator,
)
from pydantic_core import CoreSchema

from ucloud_orchestrator.models.base import ApiModel

MAXIMUM_HOSTNAME_LENGTH = 250
MAXIMUM_DIGITS = 4300
"""Digits of a number: Python's own limit of `int()`, and thereby that of our JSON readers."""
_TOO_LARGE = 10**MAXIMUM_DIGITS
_HOSTNAME = re.compile(
    r"^[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*$"
)


class AppParameterValue(ApiModel):
    """A parameter value. Validation returns the subclass that `type` names."""

    model_config = ConfigDict(defer_build=True)

    type: str

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        if cls is AppParameterValue:
            return handler.generate_schema(_AnyValue)
        return handler(source)


def split_path(path: str) -> tuple[str, str]:
    """Split `/<drive>/some/file` into the drive's id and the path inside it."""
    drive, _, inside = path.strip("/").partition("/")
    return drive, inside


class FileValue(AppParameterValue):
    """A file or folder of a drive. `path` is absolute: `/<drive>/<path in the drive>`."""

    type: Literal["file"] = "file"
    path: str
    read_only: bool = False

    @field_validator("path")
    @classmethod
    def _check_path(cls, path: str) -> str:
        if not path.startswith("/"):
            raise ValueError("must be an absolute path, such as /home/data.csv")
        if "\0" in path or ".." in path.split("/"):
            raise ValueError("must not contain '..' or a null character")
        return path


class BooleanValue(AppParameterValue):
    type: Literal["boolean"] = "boolean"
    value: StrictBool


class TextValue(AppParameterValue):
    type: Literal["text"] = "text"
    value: str


class IntegerValue(AppParameterValue):
    """An integer of at most 4300 digits."""

    type: Literal["integer"] = "integer"
    value: StrictInt

    @field_validator("value")
    @classmethod
    def _check_size(cls, value: int) -> int:
        if not -_TOO_LARGE < value < _TOO_LARGE:
            raise ValueError(f"may have {MAXIMUM_DIGITS} digits at most")
        return value


class FloatingPointValue(AppParameterValue):
    """An exact decimal number. In JSON it is a text if a float would round it."""

    type: Literal["floating_point"] = "floating_point"
    value: Decimal

    @field_validator("value")
    @classmethod
    def _check_size(cls, value: Decimal) -> Decimal:
        # An argument has all digits, without an exponent.
        if len(value.as_tuple().digits) > MAXIMUM_DIGITS or abs(value.adjusted()) > MAXIMUM_DIGITS:
            raise ValueError(
                f"may have {MAXIMUM_DIGITS} digits at most, also when it is written without an "
                "exponent"
            )
        return value

    @field_serializer("value", when_used="json")
    def _write(self, value: Decimal) -> float | str:
        as_float = float(value)
        return as_float if Decimal(str(as_float)) == value else str(value)


class PeerValue(AppParameterValue):
    """Another job, reachable from this one under `hostname`."""

    type: Literal["peer"] = "peer"
    hostname: str = Field(min_length=1, max_length=MAXIMUM_HOSTNAME_LENGTH)
    job_id: str

    @field_validator("hostname")
    @classmethod
    def _check_hostname(cls, hostname: str) -> str:
        if not _HOSTNAME.match(hostname):
            raise ValueError("must be a host name of letters, digits and hyphens")
        return hostname


class LicenseServerValue(AppParameterValue):
    """A license of the workspace; any number of jobs may use it."""

    type: Literal["license_server"] = "license_server"
    id: str


class BlockStorageValue(AppParameterValue):
    type: Literal["block_storage"] = "block_storage"
    id: str


class NetworkValue(AppParameterValue):
    """A public IP address, claimed by one job at a time."""

    type: Literal["network"] = "network"
    id: str


class IngressValue(AppParameterValue):
    """A public link, claimed by one job at a time."""

    type: Literal["ingress"] = "ingress"
    id: str


_AnyValue = Annotated[
    Union[  # noqa: UP007 - a runtime union of classes for the discriminator
        FileValue,
        BooleanValue,
        TextValue,
        IntegerValue,
        FloatingPointValue,
        PeerValue,
        LicenseServerValue,
        BlockStorageValue,
        NetworkValue,
        IngressValue,
    ],
    Field(discriminator="type"),
]

RESOURCE_TYPES = frozenset({"file", "peer", "block_storage", "network", "ingress"})
"""The types that may be attached as a resource."""

AppParameterValue.model_rebuild(force=True)
