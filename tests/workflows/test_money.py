"""The credits of a job, on the real server."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from client import Actor, JobClient, JobClosed, JobRejected, ProviderClient, RequestRefused
from tests.builders import PAID
from tests.conftest import Orchestrator
from tests.databases import KINDS
from tests.waiting import eventually
from ucloud_orchestrator.models import ErrorCode, Job, JobState, SimpleDuration
from ucloud_orchestrator.models.product import ProductCategory
from ucloud_orchestrator.models.provider_api import Charge
from ucloud_orchestrator.models.workspace import Workspace
from workflows import timeouts

CATEGORY = ProductCategory(name="paid", provider="local")
ALICE = Workspace(user="alice")
HOUR = 3 * 60
"""The price of an hour at 3 credits a minute."""


async def wallet(orchestrator: Orchestrator) -> tuple[int, int, int]:
    found = (await orchestrator.jobs.wallets()).wallets[0]
    return found.available, found.reserved, found.spent


async def paid_job(orchestrator: Orchestrator, credits: int, **changes: Any) -> Job:
    await orchestrator.jobs.grant(ALICE, CATEGORY, credits, "for the test")
    return await orchestrator.created(product=PAID, **changes)


def charge(charge_id: str, units: int, periods: int = 1) -> Charge:
    return Charge(charge_id=charge_id, units=units, periods=periods)


@pytest.mark.parametrize("database_kind", KINDS)
async def test_a_job_reserves_its_price_and_returns_the_unused_rest(
    orchestrator: Orchestrator,
) -> None:
    job = await paid_job(orchestrator, HOUR + 20)
    assert job.billing.price_per_unit == 3
    assert await wallet(orchestrator) == (20, HOUR, 0)
    answer = await orchestrator.reports.charge(job.id, [charge("1", 10), charge("2", 1)])
    assert answer.to_wire() == {"insufficientFunds": [], "duplicateCharges": []}
    again = await orchestrator.reports.charge(job.id, [charge("2", 1)])
    assert again.to_wire() == {"insufficientFunds": [], "duplicateCharges": [{"id": "2"}]}
    assert (await orchestrator.jobs.retrieve(job.id)).billing.credits_charged == 33
    await orchestrator.report(job.id, JobState.SUCCESS)
    ended = await orchestrator.jobs.wait(job.id)
    assert ended.billing.credits_charged == 33
    assert await wallet(orchestrator) == (HOUR + 20 - 33, 0, 33)
    with pytest.raises(JobClosed):
        await orchestrator.reports.charge(job.id, [charge("late", 1)])
    notes = (await orchestrator.jobs.wallets(movements=10)).movements
    assert [line.amount for line in notes] == [HOUR - 33, 3, 30, HOUR, HOUR + 20]


async def test_a_job_without_sufficient_funds_is_rejected(orchestrator: Orchestrator) -> None:
    with pytest.raises(JobRejected) as rejected:
        await orchestrator.created(product=PAID)
    assert rejected.value.code is ErrorCode.INSUFFICIENT_FUNDS
    assert "has no wallet for paid@local" in str(rejected.value)
    with pytest.raises(JobRejected) as rejected:
        await paid_job(orchestrator, HOUR - 1)
    assert f"does not cover the {HOUR} credits" in str(rejected.value)
    assert await wallet(orchestrator) == (HOUR - 1, 0, 0)


async def test_a_rejection_by_the_provider_returns_the_reservation(
    orchestrator: Orchestrator,
) -> None:
    orchestrator.provider.answers["create"] = [400]
    with pytest.raises(JobRejected):
        await paid_job(orchestrator, HOUR)
    assert await wallet(orchestrator) == (HOUR, 0, 0)


async def test_an_extension_is_paid_or_rejected(orchestrator: Orchestrator) -> None:
    job = await paid_job(orchestrator, 2 * HOUR)
    await orchestrator.report(job.id, JobState.RUNNING)
    await orchestrator.reached(job.id, JobState.RUNNING)
    orchestrator.provider.answers["extend"] = [400]
    with pytest.raises(RequestRefused):
        await orchestrator.jobs.extend(job.id, SimpleDuration(hours=1))
    assert await wallet(orchestrator) == (HOUR, HOUR, 0)
    await orchestrator.jobs.extend(job.id, SimpleDuration(hours=1))
    assert await wallet(orchestrator) == (0, 2 * HOUR, 0)
    with pytest.raises(RequestRefused) as rejected:
        await orchestrator.jobs.extend(job.id, SimpleDuration(minutes=1))
    assert rejected.value.code is ErrorCode.INSUFFICIENT_FUNDS
    assert orchestrator.provider.calls_for(job.id).count("extend") == 2
    allocation = (await orchestrator.jobs.retrieve(job.id)).specification.time_allocation
    assert allocation == SimpleDuration(hours=2)
    await orchestrator.report(job.id, JobState.SUCCESS)
    await orchestrator.jobs.wait(job.id)
    assert await wallet(orchestrator) == (2 * HOUR, 0, 0)


async def test_a_job_without_credits_stops_after_the_grace_period(
    orchestrator: Orchestrator,
) -> None:
    job = await paid_job(orchestrator, HOUR)
    await orchestrator.report(job.id, JobState.RUNNING)
    await orchestrator.reached(job.id, JobState.RUNNING)
    answer = await orchestrator.reports.charge(job.id, [charge("1", 61)])
    assert [entry.id for entry in answer.insufficient_funds] == ["1"]
    warned = await orchestrator.jobs.retrieve(job.id)
    assert (
        warned.updates[-1].status
        == "There are no more credits for this job; it will be stopped in 2 minutes."
    )
    await orchestrator.skip(job.id, timeouts.CREDIT_GRACE)
    await eventually(lambda: "terminate" in orchestrator.provider.calls_for(job.id))
    await orchestrator.report(job.id, JobState.SUCCESS)
    ended = await orchestrator.jobs.wait(job.id)
    assert [update.status for update in ended.updates][
        -2
    ] == "Your job is being terminated (No more credits)."
    assert ended.status.state is JobState.SUCCESS
    assert await wallet(orchestrator) == (HOUR, 0, 0)


@pytest.mark.parametrize("reports_the_end", [True, False])
async def test_an_expired_job_is_charged_until_its_stop(
    orchestrator: Orchestrator, reports_the_end: bool
) -> None:
    job = await paid_job(
        orchestrator, HOUR, timeAllocation={"hours": 0, "minutes": 1, "seconds": 0}
    )
    await orchestrator.report(job.id, JobState.RUNNING)
    await orchestrator.reached(job.id, JobState.RUNNING)
    await orchestrator.skip(job.id, timedelta(minutes=1))
    await eventually(lambda: "terminate" in orchestrator.provider.calls_for(job.id))
    await orchestrator.reports.charge(job.id, [charge("last", 1)])
    if reports_the_end:
        await orchestrator.report(job.id, JobState.SUCCESS)
    else:
        await orchestrator.skip(job.id, timeouts.FINAL_STATE_TIMEOUT)
    ended = await orchestrator.jobs.wait(job.id)
    assert (ended.status.state, ended.billing.credits_charged) == (JobState.EXPIRED, 3)
    assert await wallet(orchestrator) == (HOUR - 3, 0, 3)


async def test_only_a_paid_charge_gives_a_job_more_time(orchestrator: Orchestrator) -> None:
    job = await paid_job(orchestrator, HOUR)
    await orchestrator.reports.charge(job.id, [charge("paid", 1)])
    await orchestrator.reports.charge(job.id, [charge("too much", 61)])
    for sent in (charge("paid", 1), charge("nothing", 0)):
        assert (await orchestrator.reports.charge(job.id, [sent])).insufficient_funds == []
    await orchestrator.skip(job.id, timeouts.CREDIT_GRACE)
    await eventually(lambda: "terminate" in orchestrator.provider.calls_for(job.id))


async def test_only_an_operator_grants_credits(orchestrator: Orchestrator) -> None:
    bob = JobClient(orchestrator.temporal, Actor(username="bob"))
    with pytest.raises(RequestRefused) as rejected:
        await bob.grant(Workspace(user="bob"), CATEGORY, 1)
    assert rejected.value.code is ErrorCode.FORBIDDEN
    assert (await bob.wallets()).wallets == []


async def test_new_credits_keep_a_job_alive(orchestrator: Orchestrator) -> None:
    job = await paid_job(orchestrator, HOUR)
    await orchestrator.reports.charge(job.id, [charge("1", 61)])
    await orchestrator.jobs.grant(ALICE, CATEGORY, HOUR)
    await orchestrator.reports.charge(job.id, [charge("1", 61)])
    await orchestrator.skip(job.id, 2 * timeouts.CREDIT_GRACE)
    assert (await orchestrator.jobs.retrieve(job.id)).status.state is JobState.IN_QUEUE
    await orchestrator.report(job.id, JobState.SUCCESS)
    await orchestrator.jobs.wait(job.id)
    assert await wallet(orchestrator) == (2 * HOUR - 183, 0, 183)


async def test_concurrent_charges_count_once(orchestrator: Orchestrator) -> None:
    job = await paid_job(orchestrator, HOUR)
    await asyncio.gather(
        *(
            orchestrator.reports.charge(job.id, [charge(str(n % 5), 1), charge("all", 2)])
            for n in range(20)
        )
    )
    assert await wallet(orchestrator) == (0, HOUR - 21, 21)


async def test_another_provider_cannot_charge(orchestrator: Orchestrator) -> None:
    job = await paid_job(orchestrator, HOUR)
    other = ProviderClient(orchestrator.temporal, "other")
    with pytest.raises(RequestRefused) as rejected:
        await other.charge(job.id, [charge("1", 1)])
    assert rejected.value.code is ErrorCode.FORBIDDEN
    assert await wallet(orchestrator) == (0, HOUR, 0)


@pytest.mark.parametrize(
    "payload",
    [
        None,
        {},
        {"provider": "local"},
        {"provider": "local", "charges": []},
        {"provider": "local", "charges": [{}]},
    ]
    + [
        {"provider": "local", "charges": [{"chargeId": "1", "units": units, "periods": 1}]}
        for units in (-1, 0.5, 2**31)
    ],
)
async def test_a_malformed_charge_is_rejected(orchestrator: Orchestrator, payload: Any) -> None:
    job = await orchestrator.created()
    with pytest.raises(WorkflowUpdateFailedError) as rejected:
        await orchestrator.handle(job.id).execute_update("charge", payload)
    assert isinstance(rejected.value.cause, ApplicationError)
    assert rejected.value.cause.type == ErrorCode.VERIFICATION_FAILED
