"""The catalog in memory: lookups by name, and the problems found while loading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from pydantic import Field

from ucloud_orchestrator.models.application import Application, Tool
from ucloud_orchestrator.models.base import ApiModel, escape_unprintable
from ucloud_orchestrator.models.errors import MAXIMUM_SENTENCE
from ucloud_orchestrator.models.job import NameAndVersion
from ucloud_orchestrator.models.product import ComputeSupport, Product, ProductReference
from ucloud_orchestrator.models.workspace import (
    Drive,
    License,
    Membership,
    Project,
    PublicIp,
    PublicLink,
)


class Severity(StrEnum):
    """ERROR: the document is left out. WARNING: it is loaded all the same."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Problem:
    """A mistake in a file; lines count from 1."""

    file: Path
    line: int
    message: str
    severity: Severity = Severity.ERROR

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", escape_unprintable(self.message, MAXIMUM_SENTENCE))

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.severity}: {self.message}"


class ProviderLimits(ApiModel):
    maximum_concurrent_calls: int = Field(default=20, ge=1)
    calls_per_second: float | None = Field(default=None, gt=0)


class ProviderEntry(ApiModel):
    id: str = Field(min_length=1, pattern=r"^[a-zA-Z0-9_-]+$")
    address: str = Field(pattern=r"^https?://")
    limits: ProviderLimits = ProviderLimits()
    draining: bool = False
    """Reject new jobs; existing ones go on."""


class ProductEntry(Product):
    support: ComputeSupport = ComputeSupport()


@dataclass(frozen=True)
class Catalog:
    """Everything that exists. Invalid documents are in `problems` alone."""

    applications: Mapping[NameAndVersion, Application] = field(default_factory=dict)
    tools: Mapping[NameAndVersion, Tool] = field(default_factory=dict)
    products: Mapping[ProductReference, ProductEntry] = field(default_factory=dict)
    provider_entries: Mapping[str, ProviderEntry] = field(default_factory=dict)
    projects: Mapping[str, Project] = field(default_factory=dict)
    drives: Mapping[str, Drive] = field(default_factory=dict)
    licenses: Mapping[str, License] = field(default_factory=dict)
    links: Mapping[str, PublicLink] = field(default_factory=dict)
    addresses: Mapping[str, PublicIp] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def application(self, reference: NameAndVersion) -> Application | None:
        return self.applications.get(reference)

    def tool(self, reference: NameAndVersion) -> Tool | None:
        return self.tools.get(reference)

    def product(self, reference: ProductReference) -> Product | None:
        return self.products.get(reference)

    def support(self, reference: ProductReference) -> ComputeSupport | None:
        entry = self.products.get(reference)
        return entry.support if entry else None

    def provider(self, provider_id: str) -> ProviderEntry | None:
        return self.provider_entries.get(provider_id)

    def providers(self) -> list[ProviderEntry]:
        return list(self.provider_entries.values())

    def memberships(self, username: str) -> list[Membership]:
        return [
            Membership(
                project=project.id,
                role=role,
                groups=[
                    group for group, usernames in project.groups.items() if username in usernames
                ],
            )
            for project in self.projects.values()
            if (role := project.role_of(username)) is not None
        ]
