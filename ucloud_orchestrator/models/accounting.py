"""Wallets, what is held of them for live jobs, and the ledger of all movements.

Amounts are whole credits.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from ucloud_orchestrator.models.base import ApiModel
from ucloud_orchestrator.models.product import ProductCategory, UnitOfPrice
from ucloud_orchestrator.models.workspace import Workspace

MAXIMUM_AMOUNT = 2**63 - 1
"""What the databases keep in one column."""


class Wallet(ApiModel):
    """What is left for one product category: `available` to be used, `reserved` for live jobs, and
    `spent`.
    """

    owner: Workspace
    category: ProductCategory
    available: int
    reserved: int
    spent: int


class Account(StrEnum):
    """Where credits are.

    Every movement takes them from one account of a wallet and puts them into another.
    """

    GRANTED = "GRANTED"
    """The other side of what was ever granted, so that all accounts together are zero."""
    AVAILABLE = "AVAILABLE"
    RESERVED = "RESERVED"
    SPENT = "SPENT"


class Movement(ApiModel):
    """One line of the ledger; `at` is in milliseconds since the epoch."""

    category: ProductCategory
    source: Account
    target: Account
    amount: int
    at: int
    job_id: str | None = None
    charge_id: str | None = None
    note: str | None = None


class Price(ApiModel):
    """What a job's time costs, frozen when it is admitted."""

    category: ProductCategory
    price_per_unit: int
    unit_of_price: UnitOfPrice
    replicas: int
    milliseconds: int


class ChargeResult(ApiModel):
    """What became of charges: those that the wallet could not pay, those that were known, and the
    whole bill so far.
    """

    insufficient_funds: list[str] = Field(default_factory=list)
    duplicate_charges: list[str] = Field(default_factory=list)
    credits_charged: int = 0
    newly_charged: int | None = None
    """What these charges added to the bill; None in the histories of older releases."""
