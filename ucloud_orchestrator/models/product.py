"""Products: a provider's machine types, their prices, and the features supported on them."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field, NonNegativeInt

from ucloud_orchestrator.models.base import ApiModel


class ProductReference(ApiModel):
    id: str = Field(min_length=1)
    category: str = Field(min_length=1)
    provider: str = Field(min_length=1)

    def __str__(self) -> str:
        return f"{self.id}/{self.category}@{self.provider}"


class UnitOfPrice(StrEnum):
    CREDITS_PER_MINUTE = "CREDITS_PER_MINUTE"
    CREDITS_PER_HOUR = "CREDITS_PER_HOUR"
    CREDITS_PER_DAY = "CREDITS_PER_DAY"
    UNITS_PER_MINUTE = "UNITS_PER_MINUTE"
    UNITS_PER_HOUR = "UNITS_PER_HOUR"
    UNITS_PER_DAY = "UNITS_PER_DAY"
    PER_UNIT = "PER_UNIT"


class ProductCategory(ApiModel):
    """A group of products paid from one wallet."""

    name: str = Field(min_length=1, max_length=255)
    provider: str = Field(min_length=1, max_length=255)


class Product(ApiModel):
    """A machine type. Prices are whole credits; memory is in gibibytes."""

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
        return ProductReference(
            id=self.name, category=self.category.name, provider=self.category.provider
        )


class BackendSupport(ApiModel):
    """The features that the provider supports for one tool backend; all are off by default."""

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
    """The features that the provider supports for a product, by tool backend."""

    docker: BackendSupport = BackendSupport()
    virtual_machine: BackendSupport = BackendSupport()
    native: BackendSupport = BackendSupport()


class ProductSupport(ApiModel):
    product: ProductReference
    support: ComputeSupport
