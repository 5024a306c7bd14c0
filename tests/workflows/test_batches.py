"""Batches: all jobs are accepted, or none."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import text
from temporalio.api.enums.v1 import EventType

from client import Actor, JobClient, JobRejected, OrchestratorError
from tests.conftest import Orchestrator
from tests.waiting import eventually
from ucloud_orchestrator.models import ErrorCode, Job, JobSpecification, JobState

SECOND = {"id": "cpu-2", "category": "cpu", "provider": "second"}


def jobs_of(
    orchestrator: Orchestrator, here: int, there: int, **changes: Any
) -> list[JobSpecification]:
    return [orchestrator.specification(**changes) for _ in range(here)] + [
        orchestrator.specification(product=SECOND, **changes) for _ in range(there)
    ]


async def nothing_is_held(orchestrator: Orchestrator, batch_id: str) -> bool:
    statement = text("SELECT id FROM live_jobs WHERE id LIKE :ids")
    async with orchestrator.engine.connect() as connection:
        return not (await connection.execute(statement, {"ids": f"{batch_id}-%"})).all()


async def test_a_batch_costs_one_call_to_each_provider(orchestrator: Orchestrator) -> None:
    jobs = await orchestrator.jobs.create_many(jobs_of(orchestrator, 20, 10))
    assert sorted(orchestrator.provider.requests) == ["create", "second:create"]
    assert {job.status.state for job in jobs} == {JobState.IN_QUEUE}
    assert [job.specification.product.provider for job in jobs] == ["local"] * 20 + ["second"] * 10
    await orchestrator.report(jobs[0].id, JobState.RUNNING)
    await orchestrator.reached(jobs[0].id, JobState.RUNNING)
    await orchestrator.report(jobs[0].id, JobState.SUCCESS)
    assert (await orchestrator.jobs.wait(jobs[0].id)).status.state is JobState.SUCCESS
    assert await orchestrator.outcome(jobs[0].id) == "COMPLETED"


@pytest.mark.parametrize("rejecting", ["create", "second:create"])
async def test_one_rejection_undoes_the_whole_batch(
    orchestrator: Orchestrator, rejecting: str
) -> None:
    orchestrator.provider.answers[rejecting] = [400]
    batch_id = orchestrator.jobs.new_job_id()
    for _ in range(2):
        with pytest.raises(JobRejected) as rejected:
            await orchestrator.jobs.create_many(jobs_of(orchestrator, 2, 2), batch_id)
        assert (rejected.value.code, "No, says 400." in str(rejected.value)) == (
            ErrorCode.PROVIDER_REJECTED,
            True,
        )
    assert {"terminate", "second:terminate"} <= set(orchestrator.provider.requests)
    assert await nothing_is_held(orchestrator, batch_id)
    for number in range(4):
        assert await orchestrator.outcome(f"{batch_id}-{number:03}") == "FAILED"


async def test_every_finding_of_a_batch_is_returned(orchestrator: Orchestrator) -> None:
    good, bad = orchestrator.specification(), orchestrator.specification(replicas=2, parameters={})
    with pytest.raises(JobRejected) as rejected:
        await orchestrator.jobs.create_many([good, bad, good, bad])
    fields = sorted(finding.field for finding in rejected.value.findings)
    assert fields == ["[1].parameters.text", "[1].replicas", "[3].parameters.text", "[3].replicas"]
    assert orchestrator.provider.requests == []


async def test_a_link_cannot_be_in_a_batch_twice(orchestrator: Orchestrator) -> None:
    link = [{"type": "ingress", "id": "app-link"}]
    server = {
        "application": {"name": "server", "version": "1"},
        "parameters": {},
        "resources": link,
    }
    batch_id = orchestrator.jobs.new_job_id()
    with pytest.raises(JobRejected) as rejected:
        await orchestrator.jobs.create_many(jobs_of(orchestrator, 2, 0, **server), batch_id)
    assert rejected.value.code is ErrorCode.RESOURCE_IN_USE
    assert await nothing_is_held(orchestrator, batch_id)


async def test_a_batch_continues_without_its_client(orchestrator: Orchestrator) -> None:
    orchestrator.provider.open["second:create"].clear()
    batch_id = orchestrator.jobs.new_job_id()
    creating = asyncio.create_task(
        orchestrator.jobs.create_many(jobs_of(orchestrator, 1, 1), batch_id)
    )
    await eventually(lambda: "second:create" in orchestrator.provider.requests)
    creating.cancel()
    await asyncio.gather(creating, return_exceptions=True)
    orchestrator.provider.open["second:create"].set()
    jobs = await orchestrator.jobs.create_many(jobs_of(orchestrator, 1, 1), batch_id)
    assert [job.id for job in jobs] == [f"{batch_id}-000", f"{batch_id}-001"]
    again = await orchestrator.jobs.create_many(jobs_of(orchestrator, 1, 1), batch_id)
    assert [job.id for job in again] == [job.id for job in jobs]
    assert sorted(orchestrator.provider.requests) == ["create", "second:create"]


async def test_a_job_may_end_before_its_batch_is_submitted(
    orchestrator: Orchestrator,
) -> None:
    orchestrator.provider.open["second:create"].clear()
    batch_id = orchestrator.jobs.new_job_id()
    creating = asyncio.create_task(
        orchestrator.jobs.create_many(jobs_of(orchestrator, 2, 1), batch_id)
    )
    await eventually(lambda: "second:create" in orchestrator.provider.requests)
    await orchestrator.report(f"{batch_id}-000", JobState.SUCCESS)
    await orchestrator.jobs.cancel(f"{batch_id}-001")
    orchestrator.provider.open["second:create"].set()
    await creating
    await orchestrator.report(f"{batch_id}-001", JobState.SUCCESS)
    assert (await orchestrator.jobs.wait(f"{batch_id}-000")).status.state is JobState.SUCCESS
    assert (await orchestrator.jobs.wait(f"{batch_id}-001")).status.state is JobState.SUCCESS
    assert await orchestrator.outcome(f"{batch_id}-001") == "CANCELED"


async def test_a_batch_does_not_touch_a_job_with_the_same_id(orchestrator: Orchestrator) -> None:
    batch_id = orchestrator.jobs.new_job_id()
    job = await orchestrator.jobs.create(orchestrator.specification(), f"{batch_id}-001")
    with pytest.raises(JobRejected) as rejected:
        await orchestrator.jobs.create_many(jobs_of(orchestrator, 2, 0), batch_id)
    assert rejected.value.code is ErrorCode.DUPLICATE_JOB
    assert "terminate" not in orchestrator.provider.calls_for(job.id)
    assert not await nothing_is_held(orchestrator, batch_id)
    stranger = JobClient(orchestrator.temporal, Actor(username="mallory"))
    with pytest.raises(JobRejected):
        await stranger.create_many(jobs_of(orchestrator, 2, 0), batch_id)


@pytest.mark.parametrize("count", [0, 501])
async def test_a_batch_has_a_maximum_size(orchestrator: Orchestrator, count: int) -> None:
    with pytest.raises(JobRejected) as rejected:
        await orchestrator.jobs.create_many(jobs_of(orchestrator, count, 0))
    assert f"not {count}" in str(rejected.value)


async def submitted_to_one(orchestrator: Orchestrator) -> tuple[str, asyncio.Task[list[Job]]]:
    """Create two jobs here, which are submitted, and one at a provider without an answer."""
    orchestrator.provider.answers["second:create"] = [503] * 1000
    batch_id = orchestrator.jobs.new_job_id()
    creating = asyncio.create_task(
        orchestrator.jobs.create_many(jobs_of(orchestrator, 2, 1), batch_id)
    )
    await eventually(lambda: {"create", "second:create"} <= set(orchestrator.provider.requests))
    return batch_id, creating


async def test_a_batch_is_cancelled_while_a_provider_is_away(orchestrator: Orchestrator) -> None:
    batch_id, creating = await submitted_to_one(orchestrator)
    await orchestrator.temporal.get_workflow_handle(f"batch-{batch_id}").cancel(reason="by a test")
    await creating
    for number in range(2):
        await orchestrator.report(f"{batch_id}-{number:03}", JobState.SUCCESS)
    for number in range(3):
        ended = await orchestrator.jobs.wait(f"{batch_id}-{number:03}")
        assert "Its batch was cancelled: by a test" in [update.status for update in ended.updates]
    assert await orchestrator.outcome(f"batch-{batch_id}") == "CANCELED"
    assert {"terminate", "second:terminate"} <= set(orchestrator.provider.requests)
    assert await nothing_is_held(orchestrator, batch_id)


@pytest.mark.parametrize("number", [0, 2])
async def test_a_job_leaves_its_batch_while_a_provider_is_away(
    orchestrator: Orchestrator, number: int
) -> None:
    batch_id, creating = await submitted_to_one(orchestrator)
    job_id = f"{batch_id}-{number:03}"
    await orchestrator.jobs.cancel(job_id)
    await eventually(lambda: "terminate" in " ".join(orchestrator.provider.calls_for(job_id)))
    await orchestrator.report(job_id, JobState.SUCCESS)
    assert (await orchestrator.jobs.wait(job_id)).status.state is JobState.SUCCESS
    assert await orchestrator.outcome(job_id) == "CANCELED"
    orchestrator.provider.answers["second:create"].clear()
    jobs = await creating
    assert len(jobs) == 3
    others = [job for job in jobs if job.id != job_id]
    assert {job.status.state for job in others} == {JobState.IN_QUEUE}
    assert orchestrator.provider.calls_for(job_id)[-1].endswith("terminate")


async def test_a_fault_of_a_cancelled_call_rejects_no_batch(
    orchestrator: Orchestrator,
) -> None:
    orchestrator.provider.open["create"].clear()
    orchestrator.provider.answers["create"] = [503]
    batch_id = orchestrator.jobs.new_job_id()
    creating = asyncio.create_task(
        orchestrator.jobs.create_many(jobs_of(orchestrator, 2, 0), batch_id)
    )
    await eventually(lambda: "create" in orchestrator.provider.requests)
    leaving, staying = f"{batch_id}-000", f"{batch_id}-001"
    await orchestrator.jobs.cancel(leaving)

    async def is_broken_off() -> bool:
        events = [
            event async for event in orchestrator.handle(f"batch-{batch_id}").fetch_history_events()
        ]
        return any(
            event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_CANCEL_REQUESTED
            for event in events
        )

    await eventually(is_broken_off)
    orchestrator.provider.open[
        "create"
    ].set()  # before the next heartbeat, which would cancel the call
    await creating
    assert (await orchestrator.jobs.wait(leaving)).status.state is JobState.SUCCESS
    assert (await orchestrator.jobs.retrieve(staying)).status.state is JobState.IN_QUEUE
    assert orchestrator.provider.calls_for(staying) == ["create", "create"]


async def test_a_job_of_a_terminated_batch_can_be_cancelled(
    orchestrator: Orchestrator,
) -> None:
    batch_id, creating = await submitted_to_one(orchestrator)
    await orchestrator.temporal.get_workflow_handle(f"batch-{batch_id}").terminate()
    with pytest.raises(OrchestratorError):
        await creating
    for number in range(3):
        await orchestrator.jobs.cancel(f"{batch_id}-{number:03}")
        await orchestrator.report(f"{batch_id}-{number:03}", JobState.SUCCESS)
    for number in range(3):
        assert (
            await orchestrator.jobs.wait(f"{batch_id}-{number:03}")
        ).status.state is JobState.SUCCESS
    assert await nothing_is_held(orchestrator, batch_id)


async def test_a_job_removed_from_its_batch_ends(orchestrator: Orchestrator) -> None:
    batch_id, creating = await submitted_to_one(orchestrator)
    batch = orchestrator.temporal.get_workflow_handle(f"batch-{batch_id}")
    for payload in (None, {}, {"jobId": "another"}, {"jobId": f"{batch_id}-002"}):
        await batch.signal("leave", payload)
    ended = await orchestrator.jobs.wait(f"{batch_id}-002")
    assert ended.updates[-1].status == "Your job was cancelled before it was started."
    # The batch answers with the current states, which may be before or after the end of this job.
    *others, third = [job.status.state for job in await creating]
    assert others == [JobState.IN_QUEUE, JobState.IN_QUEUE]
    assert third in {JobState.CANCELING, JobState.SUCCESS}
