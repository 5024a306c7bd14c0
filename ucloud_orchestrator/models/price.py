"""What a job costs: whole credits, from the price of its product.

From UCloud's documentation of accounting: the price of a unit, times the units (begun ones count),
times the replicas.
"""

from __future__ import annotations

from ucloud_orchestrator.models.product import UnitOfPrice

_MINUTE = 60_000
_MILLISECONDS = {"MINUTE": _MINUTE, "HOUR": 60 * _MINUTE, "DAY": 24 * 60 * _MINUTE}


def unit_milliseconds(unit: UnitOfPrice) -> int | None:
    """How long one unit of the price is; None for a product that is paid once, however long it is
    used.
    """
    return _MILLISECONDS.get(unit.value.rpartition("_PER_")[2])


def units_of(unit: UnitOfPrice, milliseconds: int) -> int:
    """How many units of the price a time costs; a begun unit is a whole one."""
    length = unit_milliseconds(unit)
    return 1 if length is None else -(-milliseconds // length)


def price_of(price_per_unit: int, unit: UnitOfPrice, milliseconds: int, replicas: int) -> int:
    """The price of a whole time allocation, in credits."""
    return price_per_unit * units_of(unit, milliseconds) * replicas
