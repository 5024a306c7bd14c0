"""Losing access while a job runs: the scheduled check finds it, in bulk, and says what was lost."""

from __future__ import annotations

from datetime import timedelta

from temporalio.common import WorkflowIDConflictPolicy

from client import Actor, JobClient
from models import JobState
from models.messages import MonitorRequest
from models.names import MONITOR_WORKFLOW, TASK_QUEUE, monitor_id, new_job_id
from tests.conditions import eventually
from tests.conftest import Orchestrator
from worker import schedule_monitor

FILE = {"type": "file", "path": "/alices/data.csv", "readOnly": True}


async def check(orchestrator: Orchestrator) -> int:
    """One check of the provider, as its schedule starts it."""
    lost: int = await orchestrator.temporal.execute_workflow(
        MONITOR_WORKFLOW,
        MonitorRequest(provider="local"),
        id=f"{monitor_id('local')}-{new_job_id()}",
        task_queue=TASK_QUEUE,
        id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
        result_type=int,
    )
    return lost


async def test_a_job_that_lost_its_drive_or_its_project_is_cancelled(orchestrator: Orchestrator) -> None:
    server = {"application": {"name": "server", "version": "1"}, "parameters": {}, "resources": [FILE]}
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
    await eventually(lambda: check(orchestrator))  # the worker sees the files' change within a second
    for job, lost in ((reading, "file /alices/data.csv"), (member, "not a member of a project ocean")):
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
        await schedule_monitor(orchestrator.temporal, "local", timedelta(seconds=seconds))
    schedule = orchestrator.temporal.get_schedule_handle(monitor_id("local"))
    described = await schedule.describe()
    assert described.schedule.spec.intervals[0].every == timedelta(seconds=7200)
    await schedule.trigger()

    async def checked() -> bool:
        return bool((await schedule.describe()).info.recent_actions)

    await eventually(checked)
    await schedule.delete()
