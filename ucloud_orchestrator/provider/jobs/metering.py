"""The charges of a job: pure functions of its product, its meter and its earlier charges."""

from __future__ import annotations

from pydantic import ValidationError

from ucloud_orchestrator.models.job import Job
from ucloud_orchestrator.models.price import units_of
from ucloud_orchestrator.models.product import Product
from ucloud_orchestrator.models.provider_api import Charge


def due_charge(job: Job, used: int, charged: int, interval: int | None) -> Charge | None:
    """Return the next charge of a job that ran for `used` milliseconds; None if none is due.

    `charged` units were charged before. With an `interval` (milliseconds), whole intervals are
    charged; without it, at the end of the job, every begun unit is. The charge's id follows from
    its units, so a repeat has the same id.
    """
    try:
        product = Product.model_validate(job.status.resolved_product)
    except ValidationError:
        return None
    if product.free_to_use or product.price_per_unit == 0:
        return None
    counted = max(1, used) if interval is None else used // interval * interval
    units = units_of(product.unit_of_price, counted) if counted else 0
    if units <= charged:
        return None
    return Charge(
        charge_id=f"{charged + 1}-{units}",
        units=units - charged,
        periods=job.specification.replicas,
    )
