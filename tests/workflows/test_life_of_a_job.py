"""The life of a job on the real server, with a fake provider."""

from __future__ import annotations

import pytest

from client import JobRejected
from tests.conftest import Orchestrator
from tests.databases import KINDS
from tests.waiting import eventually
from ucloud_orchestrator.models import ErrorCode, JobState


@pytest.mark.parametrize("database_kind", KINDS)
async def test_a_job_that_runs_and_succeeds(orchestrator: Orchestrator) -> None:
    job = await orchestrator.created()
    assert job.status.state is JobState.IN_QUEUE
    await orchestrator.report(job.id, JobState.RUNNING, "Your job is now running.")
    running = await orchestrator.reached(job.id, JobState.RUNNING)
    assert running.status.started_at is not None
    assert running.status.expires_at == running.status.started_at + 3_600_000
    await orchestrator.report(job.id, JobState.SUCCESS, "The job has finished.")
    ended = await orchestrator.jobs.wait(job.id)

    assert [update.state for update in ended.updates] == [
        JobState.IN_QUEUE,
        JobState.RUNNING,
        JobState.SUCCESS,
    ]
    assert orchestrator.provider.calls_for(job.id) == ["create"]
    assert await orchestrator.outcome(job.id) == "COMPLETED"
    result = await orchestrator.temporal.get_workflow_handle(job.id).result()
    assert result == {"state": "SUCCESS", "status": "The job has finished."}
    assert await orchestrator.is_archived(ended)


async def test_a_job_is_found_by_its_name_at_the_provider(orchestrator: Orchestrator) -> None:
    job = await orchestrator.created()
    await orchestrator.report(job.id, JobState.RUNNING)

    async def found() -> bool:
        query = f"JobProviderGeneratedId = 'native-{job.id}'"
        return [one.id async for one in orchestrator.temporal.list_workflows(query)] == [job.id]

    await eventually(found)


async def test_admission_returns_every_finding(orchestrator: Orchestrator) -> None:
    job_id = orchestrator.jobs.new_job_id()
    specification = orchestrator.specification(
        parameters={"nothing": {"type": "text", "value": "x"}}
    )
    with pytest.raises(JobRejected) as rejection:
        await orchestrator.jobs.create(specification, job_id)
    assert rejection.value.code is ErrorCode.VERIFICATION_FAILED
    assert {finding.field for finding in rejection.value.findings} == {
        "parameters.nothing",
        "parameters.text",
    }
    assert orchestrator.provider.calls_for(job_id) == []
    assert await orchestrator.outcome(job_id) == "FAILED"
    assert await orchestrator.archive.retrieve(job_id) is None
