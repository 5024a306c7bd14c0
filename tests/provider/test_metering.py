"""What is due of a job's use."""

from __future__ import annotations

from typing import Any

import pytest

from tests import builders
from tests.builders import resolved_product, specification
from ucloud_orchestrator.models import Job, JobState, JobStatus
from ucloud_orchestrator.provider.jobs.metering import due_charge

MINUTE = 60_000


def job(replicas: int = 1, **changes: Any) -> Job:
    priced = resolved_product(**{"pricePerUnit": 5} | changes)
    status = JobStatus(state=JobState.RUNNING, resolved_product=priced)
    return builders.job(asked=specification(replicas=replicas), status=status)


@pytest.mark.parametrize(
    ("used", "charged", "interval", "expected"),
    [
        (0, 0, None, ("1-1", 1)),
        (MINUTE, 0, None, ("1-1", 1)),
        (MINUTE + 1, 0, None, ("1-2", 2)),
        (MINUTE + 1, 2, None, None),
        (16 * MINUTE, 15, None, ("16-16", 1)),
        (14 * MINUTE, 0, 15 * MINUTE, None),
        (15 * MINUTE, 0, 15 * MINUTE, ("1-15", 15)),
        (31 * MINUTE, 15, 15 * MINUTE, ("16-30", 15)),
        (31 * MINUTE, 30, 15 * MINUTE, None),
    ],
)
def test_begun_units_count_at_the_end(
    used: int, charged: int, interval: int | None, expected: tuple[str, int] | None
) -> None:
    charge = due_charge(job(), used, charged, interval)
    assert (None if charge is None else (charge.charge_id, charge.units)) == expected


def test_every_replica_costs() -> None:
    charge = due_charge(job(replicas=3), 1, 0, None)
    assert charge is not None
    assert charge.periods == 3


@pytest.mark.parametrize("product", [{"freeToUse": True}, {"pricePerUnit": 0}, {"name": ""}])
def test_what_is_free_is_not_charged(product: dict[str, Any]) -> None:
    assert due_charge(job(**product), MINUTE, 0, None) is None
