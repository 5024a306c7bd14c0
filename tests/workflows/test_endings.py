"""Every way in which a job can end, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest
from pydantic import ValidationError
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from client import Actor, JobClient, JobNotFound, JobRejected, RequestRefused
from tests.conftest import Orchestrator
from tests.waiting import eventually
from ucloud_orchestrator.models import ErrorCode, JobOwner, JobState, SimpleDuration
from ucloud_orchestrator.models.messages import JobRequest
from ucloud_orchestrator.temporal.names import TASK_QUEUE, WORKFLOW
from ucloud_orchestrator.temporal.search_attributes import initial_search_attributes
from workflows import display, timeouts
from workflows.job_state import WorkflowState

DAYS_30 = {"hours": 720, "minutes": 0, "seconds": 0}


async def test_a_cancelled_job_ends_as_its_provider_reports(orchestrator: Orchestrator) -> None:
    job = await orchestrator.created()
    await orchestrator.report(job.id, JobState.RUNNING)
    await orchestrator.jobs.cancel(job.id, "not needed any more")
    canceling = await orchestrator.reached(job.id, JobState.CANCELING)
    assert canceling.updates[-1].status is not None
    assert "not needed any more" in canceling.updates[-1].status
    await eventually(lambda: "terminate" in orchestrator.provider.calls_for(job.id))
    await orchestrator.report(job.id, JobState.RUNNING, "ignored")
    await orchestrator.report(job.id, JobState.SUCCESS, "Your job has been cancelled!")
    ended = await orchestrator.jobs.wait(job.id)
    assert [update.state for update in ended.updates][-2:] == [JobState.CANCELING, JobState.SUCCESS]
    assert await orchestrator.outcome(job.id) == "CANCELED"
    assert await orchestrator.is_archived(ended)
    assert orchestrator.provider.calls_for(job.id) == ["create", "terminate"]


async def test_a_provider_that_reports_nothing_after_a_cancel(orchestrator: Orchestrator) -> None:
    job = await orchestrator.created()
    await orchestrator.jobs.cancel(job.id)
    await eventually(lambda: "terminate" in orchestrator.provider.calls_for(job.id))
    await orchestrator.skip(job.id, timeouts.FINAL_STATE_TIMEOUT)
    assert (await orchestrator.jobs.wait(job.id)).status.state is JobState.SUCCESS
    assert await orchestrator.outcome(job.id) == "CANCELED"


async def test_a_stop_that_is_given_up_is_a_failure(orchestrator: Orchestrator) -> None:
    job = await orchestrator.created()
    orchestrator.provider.answers["terminate"] = [500] * 1000
    await orchestrator.jobs.cancel(job.id)
    await eventually(lambda: "terminate" in orchestrator.provider.calls_for(job.id))
    pending = (await orchestrator.handle(job.id).describe()).raw_description.pending_activities[0]
    # An operator stops the retries; a day without an answer ends in the same way.
    activity = orchestrator.temporal.get_async_activity_handle(
        workflow_id=job.id, run_id=None, activity_id=pending.activity_id
    )

    async def given_up() -> bool:
        try:
            await activity.fail(ApplicationError("given up", non_retryable=True))
        except RPCError:  # it waits for its next attempt
            return False
        return True

    await eventually(given_up)
    ended = await orchestrator.jobs.wait(job.id)
    assert ended.status.state is JobState.FAILURE
    assert "may still be running" in (ended.updates[-1].status or "")
    assert await orchestrator.archive.retrieve(job.id)


async def test_a_cancel_during_submission(orchestrator: Orchestrator) -> None:
    orchestrator.provider.answers["create"] = [503] * 1000
    job_id = orchestrator.jobs.new_job_id()
    creating = asyncio.create_task(orchestrator.jobs.create(orchestrator.specification(), job_id))
    await eventually(lambda: orchestrator.provider.calls_for(job_id))
    await orchestrator.jobs.cancel(job_id)
    await creating
    ended = await orchestrator.jobs.wait(job_id)
    assert ended.status.state is JobState.SUCCESS
    assert orchestrator.provider.calls_for(job_id)[-1] == "terminate"
    assert await orchestrator.outcome(job_id) == "CANCELED"


async def test_a_cancel_before_submission(orchestrator: Orchestrator) -> None:
    await orchestrator.stop_worker()
    job_id = orchestrator.jobs.new_job_id()
    creating = asyncio.create_task(orchestrator.jobs.create(orchestrator.specification(), job_id))

    async def cancelled() -> bool:
        try:
            await orchestrator.handle(job_id).cancel()
        except Exception:
            return False
        return True

    await eventually(cancelled)
    async with orchestrator.another_worker():
        await creating
        assert (await orchestrator.jobs.wait(job_id)).status.state is JobState.SUCCESS
    assert orchestrator.provider.calls_for(job_id) == []
    assert await orchestrator.outcome(job_id) == "CANCELED"


async def test_a_cancel_while_canceling_and_after_the_end(orchestrator: Orchestrator) -> None:
    job = await orchestrator.created()
    await orchestrator.jobs.cancel(job.id)
    await orchestrator.jobs.cancel(job.id)
    await orchestrator.reached(job.id, JobState.CANCELING)
    await orchestrator.jobs.cancel(job.id)
    await orchestrator.report(job.id, JobState.SUCCESS)
    ended = await orchestrator.jobs.wait(job.id)
    await orchestrator.jobs.cancel(job.id)
    assert await orchestrator.jobs.retrieve(job.id) == ended
    assert orchestrator.provider.calls_for(job.id).count("terminate") == 1


async def test_thirty_days_expire(orchestrator: Orchestrator) -> None:
    job = await orchestrator.created(timeAllocation=DAYS_30)
    await orchestrator.report(job.id, JobState.RUNNING)
    await orchestrator.reached(job.id, JobState.RUNNING)
    await orchestrator.skip(job.id, timedelta(days=29))
    assert (await orchestrator.jobs.retrieve(job.id)).status.state is JobState.RUNNING
    await orchestrator.skip(job.id, timedelta(days=2))
    ended = await orchestrator.jobs.wait(job.id)
    assert ended.status.state is JobState.EXPIRED
    assert orchestrator.provider.calls_for(job.id) == ["create", "terminate"]
    assert await orchestrator.outcome(job.id) == "COMPLETED"


async def test_an_extended_job_expires_later(orchestrator: Orchestrator) -> None:
    job = await orchestrator.created(timeAllocation=DAYS_30)
    await orchestrator.report(job.id, JobState.RUNNING)
    await orchestrator.reached(job.id, JobState.RUNNING)
    await orchestrator.jobs.extend(job.id, SimpleDuration(hours=240))
    await orchestrator.skip(job.id, timedelta(days=35))
    assert (await orchestrator.jobs.retrieve(job.id)).status.state is JobState.RUNNING
    await orchestrator.skip(job.id, timedelta(days=6))
    assert (await orchestrator.jobs.wait(job.id)).status.state is JobState.EXPIRED


async def test_a_suspension_does_not_stop_the_clock(orchestrator: Orchestrator) -> None:
    job = await orchestrator.created(timeAllocation=DAYS_30)
    await orchestrator.report(job.id, JobState.RUNNING)
    await orchestrator.report(job.id, JobState.SUSPENDED)
    await orchestrator.reached(job.id, JobState.SUSPENDED)
    await orchestrator.skip(job.id, timedelta(days=31))
    assert (await orchestrator.jobs.wait(job.id)).status.state is JobState.EXPIRED


async def test_three_seconds_at_real_speed(orchestrator: Orchestrator) -> None:
    job = await orchestrator.created(timeAllocation={"hours": 0, "minutes": 0, "seconds": 3})
    await orchestrator.report(job.id, JobState.RUNNING)
    ended = await orchestrator.jobs.wait(job.id)
    assert ended.status.state is JobState.EXPIRED
    assert ended.status.started_at is not None
    assert 3000 <= ended.updates[-1].timestamp - ended.status.started_at < 8000


async def test_a_creation_can_be_abandoned_and_repeated(orchestrator: Orchestrator) -> None:
    orchestrator.provider.answers["create"] = [503, 503]
    job_id = orchestrator.jobs.new_job_id()
    creating = asyncio.create_task(orchestrator.jobs.create(orchestrator.specification(), job_id))
    await eventually(lambda: orchestrator.provider.calls_for(job_id))
    creating.cancel()
    first = await orchestrator.jobs.create(orchestrator.specification(), job_id)
    assert await orchestrator.jobs.create(orchestrator.specification(), job_id) == first
    assert orchestrator.provider.calls_for(job_id) == ["create"] * 3
    await orchestrator.report(job_id, JobState.SUCCESS)
    await orchestrator.jobs.wait(job_id)
    assert (await orchestrator.jobs.create(orchestrator.specification(), job_id)).id == job_id
    assert len(orchestrator.provider.calls_for(job_id)) == 3


async def test_a_job_of_an_unreachable_provider_runs_later(
    orchestrator: Orchestrator,
) -> None:
    await orchestrator.provider.close()
    job_id = orchestrator.jobs.new_job_id()
    for _ in range(2):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await orchestrator.jobs.create(orchestrator.specification(), job_id)
    await orchestrator.provider.listen()
    await orchestrator.jobs.create(orchestrator.specification(), job_id)
    assert orchestrator.provider.calls_for(job_id) == ["create"]
    await orchestrator.report(job_id, JobState.SUCCESS)
    await orchestrator.jobs.wait(job_id)


async def test_a_rejected_job_is_not_found(orchestrator: Orchestrator) -> None:
    orchestrator.provider.answers["create"] = [422]
    job_id = orchestrator.jobs.new_job_id()
    with pytest.raises(JobRejected) as rejected:
        await orchestrator.jobs.create(orchestrator.specification(), job_id)
    assert rejected.value.code is ErrorCode.PROVIDER_REJECTED
    assert "No, says 422." in str(rejected.value)
    with pytest.raises(JobNotFound):
        await orchestrator.jobs.retrieve(job_id)
    assert await orchestrator.outcome(job_id) == "FAILED"
    described = await orchestrator.handle(job_id).describe()
    assert "JobState" not in described.search_attributes


async def test_a_rejection_whose_answer_was_lost_is_repeated(orchestrator: Orchestrator) -> None:
    orchestrator.provider.answers["create"] = [422]
    job_id = orchestrator.jobs.new_job_id()
    request = JobRequest(
        owner=JobOwner(created_by="alice"), specification=orchestrator.specification()
    )
    # As after a `create` whose update was lost with the connection: only the workflow has started.
    attributes = [
        SearchAttributePair(SearchAttributeKey.for_keyword(name), value)
        for name, value in initial_search_attributes(request.owner, request.specification).items()
    ]
    await orchestrator.temporal.start_workflow(
        WORKFLOW,
        request,
        id=job_id,
        task_queue=TASK_QUEUE,
        search_attributes=TypedSearchAttributes(attributes),
    )
    assert await orchestrator.outcome(job_id) == "FAILED"
    with pytest.raises(JobRejected) as rejected:
        await orchestrator.jobs.create(orchestrator.specification(), job_id)
    assert rejected.value.code is ErrorCode.PROVIDER_REJECTED
    others = JobClient(orchestrator.temporal, Actor(username="bob"))
    with pytest.raises(JobNotFound):
        await others.create(orchestrator.specification(), job_id)


async def test_a_reset_after_the_end_changes_nothing(
    orchestrator: Orchestrator,
) -> None:
    job = await orchestrator.created()
    await orchestrator.report(job.id, JobState.SUCCESS)
    ended = await orchestrator.jobs.wait(job.id)
    before = await orchestrator.handle(job.id).describe()
    await orchestrator.temporal.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=orchestrator.temporal.namespace,
            workflow_execution=WorkflowExecution(workflow_id=job.id, run_id=before.run_id),
            workflow_task_finish_event_id=4,
            reason="a test",
            request_id=job.id,
        )
    )
    assert await orchestrator.outcome(job.id) == "FAILED"
    assert (await orchestrator.handle(job.id).describe()).run_id != before.run_id
    assert await orchestrator.jobs.retrieve(job.id) == ended
    assert orchestrator.provider.calls_for(job.id) == ["create"]


async def test_another_workflow_is_not_found_as_a_job(orchestrator: Orchestrator) -> None:
    batch_id = orchestrator.jobs.new_job_id()
    await orchestrator.jobs.create_many([orchestrator.specification()], batch_id)
    with pytest.raises(JobNotFound):
        await orchestrator.jobs.retrieve(f"batch-{batch_id}")


async def test_browse_gives_live_and_ended_jobs_newest_first(orchestrator: Orchestrator) -> None:
    jobs = [await orchestrator.created(name=f"job {number}") for number in range(4)]
    for job in jobs[:2]:
        await orchestrator.report(job.id, JobState.SUCCESS)
        await orchestrator.jobs.wait(job.id)
    expected = [job.id for job in reversed(jobs)]

    async def all_seen() -> bool:
        found = [job.id for job in await orchestrator.jobs.browse()]
        return [job_id for job_id in found if job_id in expected] == expected

    await eventually(all_seen)
    first = await orchestrator.jobs.browse(limit=2)
    rest = await orchestrator.jobs.browse(limit=2, before=first[-1].id)
    assert [job.id for job in [*first, *rest]] == expected


async def test_a_change_of_an_ended_job_is_rejected(orchestrator: Orchestrator) -> None:
    job = await orchestrator.created()
    await orchestrator.jobs.cancel(job.id)
    await orchestrator.reached(job.id, JobState.CANCELING)
    with pytest.raises(RequestRefused) as rejected:
        await orchestrator.jobs.extend(job.id, SimpleDuration(hours=1))
    assert rejected.value.code is ErrorCode.INVALID_STATE
    await orchestrator.report(job.id, JobState.SUCCESS)
    await orchestrator.jobs.wait(job.id)


async def test_a_rejection_after_a_lost_answer_terminates_the_job(
    orchestrator: Orchestrator,
) -> None:
    orchestrator.provider.answers["create"] = [503, 403]
    job_id = orchestrator.jobs.new_job_id()
    with pytest.raises(JobRejected):
        await orchestrator.jobs.create(orchestrator.specification(), job_id)
    assert orchestrator.provider.calls_for(job_id) == ["create", "create", "terminate"]


async def test_a_cancel_during_continue_as_new_is_not_lost(
    orchestrator: Orchestrator,
) -> None:
    job = await orchestrator.created()
    await orchestrator.stop_worker()
    handle = orchestrator.handle(job.id)
    for _ in range(45):  # more events than Temporal suggests a workflow should have
        await asyncio.gather(*(handle.signal("no such signal") for _ in range(100)))
    await handle.cancel()
    async with orchestrator.another_worker():
        await eventually(lambda: "terminate" in orchestrator.provider.calls_for(job.id))
        await orchestrator.report(job.id, JobState.SUCCESS)
        assert await orchestrator.outcome(job.id) == "CANCELED"


async def test_a_deadline_far_away(orchestrator: Orchestrator) -> None:
    century = {"hours": 876_000, "minutes": 0, "seconds": 0}
    job = await orchestrator.created(timeAllocation=century)
    await orchestrator.report(job.id, JobState.RUNNING)
    await orchestrator.reached(job.id, JobState.RUNNING)
    with pytest.raises(RequestRefused) as rejected:
        await orchestrator.jobs.extend(job.id, SimpleDuration(seconds=1))
    assert rejected.value.code is ErrorCode.VERIFICATION_FAILED
    too_long = {"provider": "local", "updates": [{"newTimeAllocation": 10**17}]}
    await orchestrator.handle(job.id).signal("update", too_long)
    await orchestrator.report(job.id, text="still there")
    assert (
        await orchestrator.eventually_said(job.id, "still there")
    ).status.state is JobState.RUNNING
    with pytest.raises(ValidationError):
        SimpleDuration(hours=876_001)


async def test_the_length_of_a_reason_is_limited(orchestrator: Orchestrator) -> None:
    job = await orchestrator.created()
    with pytest.raises(RequestRefused):
        await orchestrator.jobs.cancel(job.id, "x" * 501)
    await orchestrator.handle(job.id).cancel(reason="y" * 100_000)
    canceling = await orchestrator.reached(job.id, JobState.CANCELING)
    assert len(canceling.updates[-1].status or "") < 1000


async def test_a_task_that_takes_seconds_is_not_a_deadlock(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    details, pauses = display.details, [3.0]

    def slow(state: WorkflowState) -> str:
        while pauses:
            time.sleep(pauses.pop())
        return details(state)

    monkeypatch.setattr(display, "details", slow)
    job = await orchestrator.created()
    assert pauses == []
    events = (await orchestrator.handle(job.id).fetch_history()).events
    assert EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED not in {event.event_type for event in events}


@pytest.mark.long
@pytest.mark.timeout(300)  # nine thousand signals
async def test_nine_thousand_reports_wait_for_a_worker(orchestrator: Orchestrator) -> None:
    job = await orchestrator.created()
    await orchestrator.stop_worker()
    for hundred in range(90):
        texts = (f"text {hundred * 100 + number}" for number in range(100))
        await asyncio.gather(*(orchestrator.report(job.id, text=text) for text in texts))
    await orchestrator.report(job.id, text="the last")
    async with orchestrator.another_worker():
        updates = (await orchestrator.eventually_said(job.id, "the last", 60)).updates
        assert len(updates) == 1 + 9000 + 1
    events = (await orchestrator.handle(job.id).fetch_history()).events
    assert EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED not in {event.event_type for event in events}
