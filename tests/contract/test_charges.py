"""Charges for the use of products; `--free` skips them, for providers whose products are free."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.orchestrator import ContractOrchestrator
from tests.contract.test_jobs import run_another

Make = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _costs(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("contract_free"):
        pytest.skip("The provider's products cost nothing.")


async def charged_once(
    orchestrator: ContractOrchestrator, job: dict[str, Any], began: float
) -> None:
    """Compare the charges of an ended job with its time since `began`."""
    charges = await orchestrator.charges(job)
    late = [charge["chargeId"] for charge in charges if charge["isLate"]]
    assert not late, (
        f"All use must be charged before a job's end is reported; {late} came afterwards."
    )
    units = [charge["units"] for charge in charges]
    maximum = math.ceil((time.monotonic() - began) / 60)
    assert 1 <= sum(units) <= maximum, (
        f"Each minute that was begun must be charged once, which is 1 to {maximum} here; "
        f"the charges are {units}."
    )
    periods = {charge["periods"] for charge in charges}
    replicas = job["specification"]["replicas"]
    assert periods == {replicas}, (
        f"The `periods` of a charge are the job's {replicas} replicas; they were {periods}."
    )


@pytest.mark.parametrize("replicas", [1, 2])
async def test_use_is_charged_once_and_before_the_end(
    orchestrator: ContractOrchestrator, job: Make, replicas: int
) -> None:
    began = time.monotonic()
    made = await orchestrator.created(job("sleep 1", price=1, replicas=replicas))
    await orchestrator.end_of(made)
    await run_another(orchestrator, job)
    await charged_once(orchestrator, made, began)


async def test_a_terminated_job_is_charged_for_its_use(
    orchestrator: ContractOrchestrator, job: Make
) -> None:
    began = time.monotonic()
    made = await orchestrator.created(job("sleep 300", price=1))
    await orchestrator.running(made)
    for _ in range(2):
        await orchestrator.post("terminate", made)
    await orchestrator.end_of(made)
    await run_another(orchestrator, job)
    await charged_once(orchestrator, made, began)


async def test_a_free_product_is_not_charged(orchestrator: ContractOrchestrator, job: Make) -> None:
    made = await orchestrator.created(job("sleep 1"))
    await orchestrator.end_of(made)
    await run_another(orchestrator, job)
    charges = await orchestrator.charges(made)
    assert not charges, f"The use of a free product must not be charged; it was, by {charges}."


async def test_a_job_without_credits_is_stopped(
    orchestrator: ContractOrchestrator, job: Make
) -> None:
    made = await orchestrator.created(job("sleep 300", price=1), has_credits=False)
    await orchestrator.running(made)
    end = time.monotonic() + orchestrator.timeout
    while not await orchestrator.charges(made):
        if time.monotonic() > end:
            await orchestrator.post("terminate", made)
            pytest.skip(
                "A running job is charged for the first time after more than "
                f"{orchestrator.timeout:.0f} s."
            )
        await asyncio.sleep(0.1)
    await orchestrator.reported(
        made,
        lambda state: state in {"SUCCESS", "FAILURE"},
        "A provider must stop a job when the answer to a charge names it in `insufficientFunds`.",
    )
