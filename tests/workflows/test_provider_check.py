"""The scheduled check of a provider: lost access, orphans, verification."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.common import WorkflowIDConflictPolicy

from activities import provider_sync
from activities.orphaned_jobs import ENDED_BY_FORCE
from client import Actor, JobClient
from tests.builders import PAID
from tests.conftest import Orchestrator
from tests.waiting import eventually
from ucloud_orchestrator.models import JobOwner, JobState
from ucloud_orchestrator.models.claims import claim_of
from ucloud_orchestrator.models.messages import ProviderCheckRequest
from ucloud_orchestrator.models.product import ProductCategory
from ucloud_orchestrator.models.provider_api import Charge
from ucloud_orchestrator.models.workspace import Workspace
from ucloud_orchestrator.setup import schedule_provider_check
from ucloud_orchestrator.store import ClaimStore
from ucloud_orchestrator.temporal.names import (
    PROVIDER_CHECK_WORKFLOW,
    TASK_QUEUE,
    new_job_id,
    provider_check_id,
)

FILE = {"type": "file", "path": "/alices/data.csv", "readOnly": True}


async def check(orchestrator: Orchestrator) -> int:
    """Run one check of the provider, as its schedule does."""
    lost: int = await orchestrator.temporal.execute_workflow(
        PROVIDER_CHECK_WORKFLOW,
        ProviderCheckRequest(provider="local"),
        id=f"{provider_check_id('local')}-{new_job_id()}",
        task_queue=TASK_QUEUE,
        id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
        result_type=int,
    )
    return lost


async def test_a_job_that_lost_its_drive_or_its_project_is_cancelled(
    orchestrator: Orchestrator,
) -> None:
    server = {
        "application": {"name": "server", "version": "1"},
        "parameters": {},
        "resources": [FILE],
    }
    alice, bob = orchestrator.jobs, JobClient(orchestrator.temporal, Actor(username="bob"))
    in_project = JobClient(orchestrator.temporal, Actor(username="bob", project="ocean"))
    kept = await alice.create(orchestrator.specification(**server))
    reading = await bob.create(orchestrator.specification(**server))
    member = await in_project.create(orchestrator.specification())
    for job in (kept, reading, member):
        await orchestrator.report(job.id, JobState.RUNNING)
        await orchestrator.reached(job.id, JobState.RUNNING) if job is kept else None
    assert await check(orchestrator) == 0

    file = orchestrator.catalog / "workspaces.yaml"
    lines = file.read_text().splitlines()
    file.write_text("\n".join(line for line in lines if "bob" not in line and line != "acl:"))
    await eventually(
        lambda: check(orchestrator)
    )  # the worker sees the files' change within a second
    for job, lost in (
        (reading, "file /alices/data.csv"),
        (member, "not a member of a project ocean"),
    ):
        await eventually(lambda job=job: "terminate" in orchestrator.provider.calls_for(job.id))  # type: ignore[misc]
        await orchestrator.report(job.id, JobState.SUCCESS)
        assert await orchestrator.outcome(job.id) == "CANCELED"
        ended = await orchestrator.archive.retrieve(job.id)
        assert ended is not None
        text = ended.updates[-2].status or ""
        assert ("lost permissions" in text, lost in text) == (True, True)
    assert (await alice.retrieve(kept.id)).status.state is JobState.RUNNING
    assert await check(orchestrator) == 0


async def test_a_schedule_starts_the_check(orchestrator: Orchestrator) -> None:
    for seconds in (3600, 7200):
        await schedule_provider_check(orchestrator.temporal, "local", timedelta(seconds=seconds))
    schedule = orchestrator.temporal.get_schedule_handle(provider_check_id("local"))
    described = await schedule.describe()
    assert described.schedule.spec.intervals[0].every == timedelta(seconds=7200)
    await schedule.trigger()

    async def started() -> str | None:
        actions = (await schedule.describe()).info.recent_actions
        return actions[0].action.workflow_id if actions else None

    workflow_id = await eventually(started)
    assert workflow_id is not None
    await schedule.delete()
    assert (
        await orchestrator.temporal.get_workflow_handle(workflow_id, result_type=int).result() == 0
    )


async def test_a_terminated_workflow_leaves_nothing_behind(
    orchestrator: Orchestrator,
) -> None:
    category = ProductCategory(name="paid", provider="local")
    await orchestrator.jobs.grant(Workspace(user="alice"), category, 180)
    link = {"type": "ingress", "id": "app-link"}
    job = await orchestrator.created(
        application={"name": "server", "version": "1"},
        parameters={},
        resources=[link],
        product=PAID,
    )
    kept = await orchestrator.created()
    await orchestrator.report(job.id, JobState.RUNNING, "running")
    await orchestrator.eventually_said(job.id, "running")
    await orchestrator.reports.charge(job.id, [Charge(charge_id="1", units=10, periods=1)])
    await orchestrator.handle(job.id).terminate("by a test")
    orchestrator.provider.answers["terminate"] = [503]
    assert await check(orchestrator) == 0
    assert orchestrator.provider.calls_for(job.id) == ["create", "terminate", "terminate"]
    assert await orchestrator.jobs.holder("ingress", "app-link") is None
    wallet = (await orchestrator.jobs.wallets()).wallets[0]
    assert (wallet.available, wallet.reserved, wallet.spent) == (150, 0, 30)
    ended = await orchestrator.jobs.retrieve(job.id)
    assert [update.status for update in ended.updates][1:] == ["running", ENDED_BY_FORCE]
    assert (ended.status.state, ended.billing.credits_charged) == (JobState.FAILURE, 30)
    assert await check(orchestrator) == 0
    assert "terminate" not in orchestrator.provider.calls_for(kept.id)
    assert len(orchestrator.provider.calls_for(job.id)) == 3


async def test_an_orphan_keeps_its_claim_until_its_provider_stops_it(
    orchestrator: Orchestrator,
) -> None:
    job = await orchestrator.created()
    await orchestrator.handle(job.id).terminate()
    orchestrator.provider.answers["terminate"] = [403]
    with pytest.raises(WorkflowFailureError):
        await check(orchestrator)
    claims, _ = await ClaimStore(orchestrator.engine).list_claims("local")
    assert [claim.job_id for claim in claims] == [job.id]
    await check(orchestrator)
    assert await ClaimStore(orchestrator.engine).list_claims("local") == ([], None)


async def test_a_batch_terminated_before_its_jobs_started_is_withdrawn(
    orchestrator: Orchestrator,
) -> None:
    owner, specification = JobOwner(created_by="alice"), orchestrator.specification()
    await ClaimStore(orchestrator.engine).claim(
        [claim_of("never-started", owner, specification, None, "batch-none")]
    )
    await check(orchestrator)
    assert await ClaimStore(orchestrator.engine).list_claims("local") == ([], None)
    ended = await orchestrator.archive.retrieve("never-started")
    assert ended is not None
    assert ended.updates[-1].status == ENDED_BY_FORCE


async def listed(orchestrator: Orchestrator, jobs: list[str], state: JobState) -> None:
    """Wait until Temporal's list has these jobs in that state."""

    async def are_there() -> bool:
        query = f"JobState = '{state}' AND WorkflowId IN ({', '.join(map(repr, jobs))})"
        return (await orchestrator.temporal.count_workflows(query)).count == len(jobs)

    await eventually(are_there)


async def test_submitted_jobs_are_verified_in_bulk_and_pending_ones_not(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_sync, "JOBS_PER_PAGE", 3)
    running = [(await orchestrator.created()).id for _ in range(4)]
    for job_id in running:
        await orchestrator.report(job_id, JobState.RUNNING)
    queued = (await orchestrator.created()).id
    submitted = [*running, queued]
    orchestrator.provider.open["create"].clear()
    on_its_way = orchestrator.jobs.new_job_id()
    creating = asyncio.create_task(
        orchestrator.jobs.create(orchestrator.specification(), on_its_way)
    )
    await eventually(lambda: orchestrator.provider.calls_for(on_its_way))
    await listed(orchestrator, running, JobState.RUNNING)
    await listed(orchestrator, [queued, on_its_way], JobState.IN_QUEUE)
    lengths = [
        (await orchestrator.handle(job_id).describe()).history_length for job_id in submitted
    ]
    await check(orchestrator)
    for job_id in submitted:
        assert orchestrator.provider.calls_for(job_id) == ["create", "verify"]
    assert orchestrator.provider.requests.count("verify") == 2
    assert orchestrator.provider.calls_for(on_its_way) == ["create"]
    assert [
        (await orchestrator.handle(job_id).describe()).history_length for job_id in submitted
    ] == lengths
    orchestrator.provider.open["create"].set()
    await creating
    await check(orchestrator)
    assert orchestrator.provider.calls_for(on_its_way) == ["create", "verify"]


async def test_jobs_of_a_batch_are_verified_once_their_provider_has_them(
    orchestrator: Orchestrator,
) -> None:
    jobs = await orchestrator.jobs.create_many([orchestrator.specification()] * 2)
    await listed(orchestrator, [job.id for job in jobs], JobState.IN_QUEUE)
    await check(orchestrator)
    assert [orchestrator.provider.calls_for(job.id) for job in jobs] == [["create", "verify"]] * 2


async def test_a_submission_that_the_store_missed_is_repeated(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    note, failures = ClaimStore.mark_submitted, [OSError("The database is away.")]

    async def note_the_second_time(self: ClaimStore, job_ids: Sequence[str]) -> None:
        if failures:
            raise failures.pop()
        await note(self, job_ids)

    monkeypatch.setattr(ClaimStore, "mark_submitted", note_the_second_time)
    job = await orchestrator.created()
    assert orchestrator.provider.calls_for(job.id) == ["create", "create"]
    assert await ClaimStore(orchestrator.engine).find_submitted([job.id]) == {job.id}


@pytest.mark.parametrize("state", [JobState.IN_QUEUE, JobState.SUSPENDED])
async def test_a_job_that_its_provider_lost_ends(
    orchestrator: Orchestrator, state: JobState
) -> None:
    job = await orchestrator.created()
    await orchestrator.report(job.id, state)
    await orchestrator.reached(job.id, state)
    await listed(orchestrator, [job.id], state)
    await check(orchestrator)
    assert orchestrator.provider.calls_for(job.id) == ["create", "verify"]
    (item,) = [item for item in orchestrator.provider.items if item["id"] == job.id][1:]
    assert (item["status"]["state"], item["owner"]["createdBy"]) == (state, "alice")
    await orchestrator.report(
        job.id, JobState.FAILURE, "Your job is no longer available at the provider."
    )
    assert await orchestrator.outcome(job.id) == "COMPLETED"
    assert await ClaimStore(orchestrator.engine).list_claims("local") == ([], None)
