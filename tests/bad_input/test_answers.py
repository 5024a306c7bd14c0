"""The answers of a job in one workflow task stay below the server's limit (decision 0013).

A task above the limit would end the job.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from temporalio.service import RPCError, RPCStatusCode

from activities.orphaned_jobs import ENDED_BY_FORCE
from client import Actor, JobClient
from tests.bad_input.test_job_messages import lives_and_ends
from tests.conftest import Orchestrator
from tests.waiting import eventually
from tests.workflows.test_provider_check import check
from ucloud_orchestrator.models import Job, JobState
from ucloud_orchestrator.models.job import Permission, ResourceAclEntry, UserEntity
from ucloud_orchestrator.models.limits import MAXIMUM_SPECIFICATION_BYTES, size_findings
from ucloud_orchestrator.models.messages import MAXIMUM_BATCH

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

FOUR_BYTES = "\N{GRINNING FACE}"
ESCAPED = "\x1b" * 300_000
"""Six times as large on the wire."""
SESSION = {"sessionType": "SHELL", "rank": 0, "challenge": "0" * 64}
REQUESTS_AT_ONCE = 10
"""The server's limit for one job (`history.maxInFlightUpdates`)."""


async def has_pending(orchestrator: Orchestrator, job_id: str) -> bool:
    description = await orchestrator.handle(job_id).describe()
    return description.raw_description.HasField("pending_workflow_task")


@contextlib.contextmanager
def locked_store(orchestrator: Orchestrator) -> Iterator[None]:
    """Block every write to the store."""
    path = str(orchestrator.engine.url.database)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as store:
        store.execute("BEGIN IMMEDIATE")
        yield


async def with_waiting_reports(orchestrator: Orchestrator) -> tuple[Job, list[str]]:
    """Create a job with three large reports before a worker runs. Return it, and their texts."""
    job = await orchestrator.created()
    await orchestrator.stop_worker()
    texts = [f"{number}{ESCAPED}" for number in range(3)]
    for text in texts:
        await orchestrator.report(job.id, text=text)
    return job, texts


async def test_large_reports_and_queries_at_once(orchestrator: Orchestrator) -> None:
    job, texts = await with_waiting_reports(orchestrator)
    queries = [asyncio.create_task(orchestrator.jobs.retrieve(job.id)) for _ in range(3)]
    assert await has_pending(orchestrator, job.id)
    async with orchestrator.another_worker():
        for answer in await asyncio.gather(*queries):
            assert [update.status for update in answer.updates[1:]] == texts
        await lives_and_ends(orchestrator, job.id)


async def test_an_end_after_large_reports_is_shown_with_all(
    orchestrator: Orchestrator,
) -> None:
    job, texts = await with_waiting_reports(orchestrator)
    await orchestrator.report(job.id, JobState.SUCCESS, "done")
    queries = [asyncio.create_task(orchestrator.jobs.retrieve(job.id)) for _ in range(3)]
    async with orchestrator.another_worker():
        for answer in await asyncio.gather(*queries):
            assert answer.status.state is JobState.SUCCESS
            assert [update.status for update in answer.updates[1:]] == [*texts, "done"]
        assert await orchestrator.outcome(job.id) == "COMPLETED"
        assert await orchestrator.is_archived(answer)


async def test_large_reports_while_others_are_offloaded(orchestrator: Orchestrator) -> None:
    job = await orchestrator.created()
    texts = [f"{number}{ESCAPED}" for number in range(6)]
    with locked_store(orchestrator):
        for text in texts:
            await orchestrator.report(job.id, text=text)
            await eventually(lambda: has_pending(orchestrator, job.id))
    await lives_and_ends(orchestrator, job.id)
    assert [
        update.status for update in (await orchestrator.jobs.retrieve(job.id)).updates[1:7]
    ] == texts


async def test_updates_that_cannot_be_offloaded_are_shown(
    orchestrator: Orchestrator,
) -> None:
    job = await orchestrator.created()
    texts = [f"{number}{ESCAPED[:70_000]}" for number in range(3)]
    with locked_store(orchestrator):
        for text in texts:
            await orchestrator.report(job.id, text=text)
        live = await orchestrator.eventually_said(job.id, texts[-1])
        assert [update.status for update in live.updates[1:]] == texts
        assert (await orchestrator.reports.retrieve(job.id)).updates == live.updates
        listed = next(one for one in await orchestrator.jobs.browse() if one.id == job.id)
        assert (listed.updates, listed.withheld_updates) == ([], 0)
    await orchestrator.report(job.id, JobState.SUCCESS, "done")
    ended = await orchestrator.jobs.wait(job.id)
    assert [update.status for update in ended.updates[1:]] == [*texts, "done"]
    assert await orchestrator.outcome(job.id) == "COMPLETED"
    # A task that times out is repeated, and stamps its updates again: the times may differ.
    archived = await orchestrator.archive.retrieve(job.id)
    assert archived is not None
    assert [update.status for update in archived.updates[1:]] == [*texts, "done"]


async def test_a_terminated_job_is_archived_with_all_updates(
    orchestrator: Orchestrator,
) -> None:
    job = await orchestrator.created()
    orchestrator.provider.open["terminate"].clear()
    await orchestrator.jobs.cancel(job.id)
    await orchestrator.reached(job.id, JobState.CANCELING)
    texts = [f"{number}{ESCAPED}" for number in range(3)]
    for text in texts:
        await orchestrator.report(job.id, text=text)
    await orchestrator.eventually_said(job.id, texts[-1])
    await orchestrator.handle(job.id).terminate()
    orchestrator.provider.open["terminate"].set()
    await check(orchestrator)
    ended = await orchestrator.archive.retrieve(job.id)
    assert ended is not None
    assert [update.status for update in ended.updates[2:]] == [*texts, ENDED_BY_FORCE]


async def test_all_requests_that_can_wait_for_the_largest_job(orchestrator: Orchestrator) -> None:
    value = "a" * (MAXIMUM_SPECIFICATION_BYTES - 1000)
    job = await orchestrator.created(parameters={"text": {"type": "text", "value": value}})
    await orchestrator.report(job.id, JobState.RUNNING)
    await orchestrator.reached(job.id, JobState.RUNNING)
    entries = [
        ResourceAclEntry(entity=UserEntity(username=FOUR_BYTES * 60), permissions=[Permission.READ])
    ] * 200
    await orchestrator.jobs.update_acl(job.id, entries)
    await orchestrator.stop_worker()
    handle = orchestrator.handle(job.id)
    requests = [
        asyncio.create_task(handle.execute_update("open_session", SESSION))
        for _ in range(REQUESTS_AT_ONCE)
    ]
    await eventually(lambda: has_pending(orchestrator, job.id))
    await orchestrator.report(job.id, text="a" * 700_000)
    query = asyncio.create_task(orchestrator.jobs.retrieve(job.id))
    async with orchestrator.another_worker():
        sessions: list[dict[str, Any]] = await asyncio.gather(*requests)
        assert all(session["type"] == "shell" for session in sessions)
        permissions = (await query).permissions
        assert permissions is not None
        assert len(permissions.others) == len(entries)
        await lives_and_ends(orchestrator, job.id)


async def test_too_large_requests_do_not_reach_the_job(
    orchestrator: Orchestrator,
) -> None:
    job = await orchestrator.created()
    await orchestrator.stop_worker()
    handle = orchestrator.handle(job.id)
    message = {"name": "n", "more": "a" * 1_900_000}
    updates = [asyncio.create_task(handle.execute_update("rename", message)) for _ in range(4)]
    for error in await asyncio.gather(*updates, return_exceptions=True):
        assert isinstance(error, RPCError), error
        assert error.status is RPCStatusCode.RESOURCE_EXHAUSTED
    async with orchestrator.another_worker():
        await lives_and_ends(orchestrator, job.id)


async def test_the_largest_batch_is_accepted(orchestrator: Orchestrator) -> None:
    user = JobClient(orchestrator.temporal, Actor(username=FOUR_BYTES * 150))
    specifications = [
        orchestrator.specification(
            name=f"{number}", parameters={"text": {"type": "text", "value": "a" * 1700}}
        )
        for number in range(MAXIMUM_BATCH)
    ]
    assert size_findings([*specifications, *specifications[:50]])
    assert len(await user.create_many(specifications)) == MAXIMUM_BATCH
