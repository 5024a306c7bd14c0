"""Compute the price of a job in whole credits.

From UCloud's documentation of accounting: price per unit * started units * replicas.
"""

from __future__ import annotations

from ucloud_orchestrator.models.product import UnitOfPrice

_MINUTE = 60_000
_MILLISECONDS = {"MINUTE": _MINUTE, "HOUR": 60 * _MINUTE, "DAY": 24 * 60 * _MINUTE}


def unit_milliseconds(unit: UnitOfPrice) -> int | None:
    """Return the duration of one unit; None for a product with a price for any duration."""
    return _MILLISECONDS.get(unit.value.rpartition("_PER_")[2])


def units_of(unit: UnitOfPrice, milliseconds: int) -> int:
    """Count the units of a time, rounded up."""
    duration = unit_milliseconds(unit)
    return 1 if duration is None else -(-milliseconds // duration)


def price_of(price_per_unit: int, unit: UnitOfPrice, milliseconds: int, replicas: int) -> int:
    """Compute the price of a time allocation, in credits."""
    return price_per_unit * units_of(unit, milliseconds) * replicas
