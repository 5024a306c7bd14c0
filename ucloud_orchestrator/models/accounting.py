"""Wallets, the ledger of their movements, and price terms. Amounts are whole credits."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from ucloud_orchestrator.models.base import ApiModel
from ucloud_orchestrator.models.product import ProductCategory, UnitOfPrice
from ucloud_orchestrator.models.workspace import Workspace

MAXIMUM_AMOUNT = 2**63 - 1
"""The largest value of a BIGINT column."""


class Wallet(ApiModel):
    """The credits of one workspace for one product category; `reserved` is for live jobs."""

    owner: Workspace
    category: ProductCategory
    available: int
    reserved: int
    spent: int


class Account(StrEnum):
    """The accounts of a wallet. Every movement transfers credits between two of them."""

    GRANTED = "GRANTED"
    """The contra account of all grants, so that the accounts of a wallet sum to zero."""
    AVAILABLE = "AVAILABLE"
    RESERVED = "RESERVED"
    SPENT = "SPENT"


class Movement(ApiModel):
    """An entry of the ledger; `at` is in milliseconds since the epoch."""

    category: ProductCategory
    source: Account
    target: Account
    amount: int
    at: int
    job_id: str | None = None
    charge_id: str | None = None
    note: str | None = None


class Price(ApiModel):
    """The terms of a job's price, fixed at admission; `models.price.price_of` computes it.

    `milliseconds` is the reserved time.
    """

    category: ProductCategory
    price_per_unit: int
    unit_of_price: UnitOfPrice
    replicas: int
    milliseconds: int


class ChargeResult(ApiModel):
    """The result of charges: ids not covered by the wallet, duplicate ids, and the total bill."""

    insufficient_funds: list[str] = Field(default_factory=list)
    duplicate_charges: list[str] = Field(default_factory=list)
    credits_charged: int = 0
    newly_charged: int = 0
    """Credits that these charges added to the bill."""
