"""Products: the machines that a provider offers, what they cost, and what the provider can do with
jobs on them.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field, NonNegativeInt

from ucloud_orchestrator.models.base import ApiModel


class ProductReference(ApiModel):
    """What identifies a product: its name, its category, and the provider that has it."""

    id: str = Field(min_length=1)
    category: str = Field(min_length=1)
    provider: str = Field(min_length=1)

    def __str__(self) -> str:
        return f"{self.id}/{self.category}@{self.provider}"


class UnitOfPrice(StrEnum):
    """What `price_per_unit` is the price of."""

    CREDITS_PER_MINUTE = "CREDITS_PER_MINUTE"
    CREDITS_PER_HOUR = "CREDITS_PER_HOUR"
    CREDITS_PER_DAY = "CREDITS_PER_DAY"
    UNITS_PER_MINUTE = "UNITS_PER_MINUTE"
    UNITS_PER_HOUR = "UNITS_PER_HOUR"
    UNITS_PER_DAY = "UNITS_PER_DAY"
    PER_UNIT = "PER_UNIT"


class ProductCategory(ApiModel):
    """A group of products that one wallet pays for."""

    name: str = Field(min_length=1, max_length=255)
    provider: str = Field(min_length=1, max_length=255)


class Product(ApiModel):
    """A machine that a job can run on. Prices are whole credits; memory is in gibibytes."""

    name: str = Field(min_length=1)
    category: ProductCategory
    price_per_unit: NonNegativeInt = 0
    unit_of_price: UnitOfPrice = UnitOfPrice.CREDITS_PER_MINUTE
    cpu: int | None = Field(default=None, ge=1)
    memory_in_gigs: int | None = Field(default=None, ge=1)
    gpu: int | None = Field(default=None, ge=0)
    free_to_use: bool = False
    description: str = ""

    @property
    def reference(self) -> ProductReference:
        """The name under which jobs ask for it."""
        return ProductReference(
            id=self.name, category=self.category.name, provider=self.category.provider
        )


class BackendSupport(ApiModel):
    """What the provider can do with jobs of one kind of tool.

    A feature that is not mentioned is not supported.
    """

    enabled: bool = False
    web: bool = False
    vnc: bool = False
    logs: bool = False
    terminal: bool = False
    peers: bool = False
    time_extension: bool = False
    utilization: bool = False
    suspension: bool = False


class ComputeSupport(ApiModel):
    """What the provider can do with a product, for each backend of a tool."""

    docker: BackendSupport = BackendSupport()
    virtual_machine: BackendSupport = BackendSupport()
    native: BackendSupport = BackendSupport()


class ProductSupport(ApiModel):
    """A product together with what its provider can do with it."""

    product: ProductReference
    support: ComputeSupport
