"""Messages to a job: none makes it stuck, and no valid one is lost."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import subprocess

import pytest
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError

from client import JobClosed, RequestRefused
from tests.conftest import TEMPORAL_BINARY, Orchestrator
from tests.waiting import eventually
from ucloud_orchestrator.models import ErrorCode, JobState, JobUpdate, SimpleDuration
from workflows.job_state import HELD_UPDATE_BYTES


async def test_success_before_the_answer_to_create(orchestrator: Orchestrator) -> None:
    orchestrator.provider.open["create"].clear()
    job_id = orchestrator.jobs.new_job_id()
    creating = asyncio.create_task(orchestrator.jobs.create(orchestrator.specification(), job_id))
    await eventually(lambda: orchestrator.provider.calls_for(job_id))
    await orchestrator.report(job_id, JobState.RUNNING)
    await orchestrator.report(job_id, JobState.SUCCESS, "quick")
    job = await creating
    assert job.id == job_id
    orchestrator.provider.open["create"].set()
    assert (await orchestrator.jobs.wait(job_id)).status.state is JobState.SUCCESS
    assert await orchestrator.outcome(job_id) == "COMPLETED"


async def test_a_signal_before_the_first_task(orchestrator: Orchestrator) -> None:
    await orchestrator.stop_worker()
    job_id = orchestrator.jobs.new_job_id()
    creating = asyncio.create_task(orchestrator.jobs.create(orchestrator.specification(), job_id))
    handle = orchestrator.handle(job_id)
    await eventually(lambda: _exists(handle))
    await orchestrator.report(job_id, JobState.RUNNING, "early")
    async with orchestrator.another_worker():
        assert (await creating).id == job_id
        assert (await orchestrator.reached(job_id, JobState.RUNNING)).updates[-1].status == "early"


async def _exists(handle: WorkflowHandle[object, object]) -> bool:
    try:
        await handle.describe()
    except Exception:
        return False
    return True


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [None],
        ["text"],
        [17],
        [{"updates": []}],
        [{"provider": "local", "updates": "no"}],
        [{"provider": "local", "updates": [{"state": "RUNNING"}, {"state": "NO_SUCH_STATE"}]}],
        [{"provider": "local", "updates": [{"status": 5}]}],
        [{"provider": "local", "updates": [{"newTimeAllocation": -5}]}],
        [{"provider": "other", "updates": [{"state": "FAILURE"}]}],
    ],
    ids=lambda arguments: json.dumps(arguments)[:60],
)
async def test_an_invalid_update_changes_nothing(
    orchestrator: Orchestrator, arguments: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    job = await orchestrator.created()
    with caplog.at_level(logging.WARNING, "temporalio.workflow"):
        await orchestrator.handle(job.id).signal("update", args=arguments)
        await orchestrator.report(job.id, text="still well")
        after = await orchestrator.eventually_said(job.id, "still well")
    assert [update.status for update in after.updates] == [job.updates[0].status, "still well"]
    assert after.status.state is JobState.IN_QUEUE
    assert "ignored" in caplog.text


async def test_surplus_arguments_are_dropped(orchestrator: Orchestrator) -> None:
    job = await orchestrator.created()
    good = {"provider": "local", "updates": [{"state": "RUNNING"}]}
    await orchestrator.handle(job.id).signal("update", args=[good, "surplus", 3])
    await orchestrator.reached(job.id, JobState.RUNNING)
    assert (await orchestrator.handle(job.id).query("job", args=[0, "surplus"]))["id"] == job.id
    assert (await orchestrator.handle(job.id).execute_update("accepted", args=[1, 2]))[
        "id"
    ] == job.id


async def test_an_unknown_signal_is_logged(
    orchestrator: Orchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    job = await orchestrator.created()
    with caplog.at_level(logging.WARNING, "temporalio.workflow"):
        await orchestrator.handle(job.id).signal("updaet", args=[{"provider": "local"}])
        await orchestrator.report(job.id, JobState.RUNNING)
        await orchestrator.reached(job.id, JobState.RUNNING)
    assert "'updaet'" in caplog.text


async def test_the_temporal_command_line_moves_a_job(orchestrator: Orchestrator) -> None:
    job = await orchestrator.created()
    payload = json.dumps(
        {"provider": "local", "updates": [{"state": "RUNNING", "status": "by hand"}]}
    )
    address = orchestrator.temporal.service_client.config.target_host
    command = [str(TEMPORAL_BINARY), "workflow", "signal", "--address", address, "-w", job.id]
    process = await asyncio.create_subprocess_exec(
        *command, "--name", "update", "--input", payload, stdout=subprocess.DEVNULL
    )
    assert await process.wait() == 0
    assert (await orchestrator.reached(job.id, JobState.RUNNING)).updates[-1].status == "by hand"


async def test_the_server_rejects_an_update_after_the_end(orchestrator: Orchestrator) -> None:
    job = await orchestrator.created()
    await orchestrator.report(job.id, JobState.SUCCESS)
    await orchestrator.jobs.wait(job.id)
    with pytest.raises(JobClosed):
        await orchestrator.report(job.id, JobState.RUNNING)
    with pytest.raises(JobClosed):
        await orchestrator.jobs.suspend(job.id)


async def test_the_end_of_a_job_rejects_its_open_requests(
    orchestrator: Orchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    job = await orchestrator.created()
    orchestrator.provider.open["extend"].clear()
    extending = asyncio.create_task(orchestrator.jobs.extend(job.id, SimpleDuration(hours=1)))
    await eventually(lambda: "extend" in orchestrator.provider.calls_for(job.id))
    await orchestrator.jobs.cancel(job.id)
    with pytest.raises(RequestRefused, match="ended before the provider answered to extend"):
        await extending
    orchestrator.provider.open["extend"].set()
    await orchestrator.report(job.id, text="The end is near.")
    await orchestrator.eventually_said(job.id, "The end is near.")
    gc.collect()
    assert "never retrieved" not in caplog.text
    await orchestrator.report(job.id, JobState.SUCCESS)
    await orchestrator.jobs.wait(job.id)


async def test_two_extensions_at_once_both_count(orchestrator: Orchestrator) -> None:
    job = await orchestrator.created()
    await orchestrator.report(job.id, JobState.RUNNING)
    before = await orchestrator.reached(job.id, JobState.RUNNING)
    await asyncio.gather(
        orchestrator.jobs.extend(job.id, SimpleDuration(hours=2)),
        orchestrator.jobs.extend(job.id, SimpleDuration(minutes=30)),
    )
    after = await orchestrator.jobs.retrieve(job.id)
    assert after.specification.time_allocation == SimpleDuration(hours=3, minutes=30)
    assert before.status.expires_at is not None
    assert after.status.expires_at == before.status.expires_at + 9_000_000
    allocations = [
        item["job"]["specification"]["timeAllocation"]["hours"]
        for item in orchestrator.provider.items[1:]
    ]
    assert sorted(allocations) in (
        [1, 1],
        [1, 3],
    )  # the second call has the change of the first


@pytest.mark.parametrize(
    "request_", [None, {}, {"requestedTime": {}}, {"requestedTime": {"minutes": 99}}]
)
async def test_an_invalid_extension_is_rejected(
    orchestrator: Orchestrator, request_: object
) -> None:
    job = await orchestrator.created()
    with pytest.raises(WorkflowUpdateFailedError):
        await orchestrator.handle(job.id).execute_update("extend", args=[request_])
    assert orchestrator.provider.calls_for(job.id) == ["create"]


async def test_an_extension_that_the_provider_rejects_changes_nothing(
    orchestrator: Orchestrator,
) -> None:
    job = await orchestrator.created()
    orchestrator.provider.answers["extend"] = [400]
    with pytest.raises(RequestRefused, match="No, says 400"):
        await orchestrator.jobs.extend(job.id, SimpleDuration(hours=2))
    after = await orchestrator.jobs.retrieve(job.id)
    assert after.specification.time_allocation == SimpleDuration(hours=1)


async def test_an_unsupported_call_never_reaches_the_provider(orchestrator: Orchestrator) -> None:
    product = {"id": "plain-1", "category": "plain", "provider": "local"}
    job = await orchestrator.created(product=product)
    with pytest.raises(RequestRefused) as rejected:
        await orchestrator.jobs.suspend(job.id)
    assert rejected.value.code is ErrorCode.FEATURE_NOT_SUPPORTED_BY_PROVIDER
    assert orchestrator.provider.calls_for(job.id) == ["create"]


async def test_suspension_follows_the_provider(orchestrator: Orchestrator) -> None:
    job = await orchestrator.created()
    await orchestrator.jobs.suspend(job.id)
    assert (await orchestrator.jobs.retrieve(job.id)).status.state is JobState.IN_QUEUE
    await orchestrator.report(job.id, JobState.SUSPENDED)
    await orchestrator.reached(job.id, JobState.SUSPENDED)
    await orchestrator.jobs.unsuspend(job.id)
    assert orchestrator.provider.calls_for(job.id) == ["create", "suspend", "unsuspend"]


@pytest.mark.long
@pytest.mark.timeout(300)  # five thousand signals, one after the other
async def test_five_thousand_texts_are_all_kept_in_order(orchestrator: Orchestrator) -> None:
    job = await orchestrator.created()
    first_run = (await orchestrator.handle(job.id).describe()).run_id
    await orchestrator.report(job.id, JobState.RUNNING)
    texts = [f"step {number} " + "x" * 100 for number in range(5000)]
    for text in texts:
        await orchestrator.report(job.id, text=text)
    kept = await orchestrator.eventually_said(job.id, texts[-1], seconds=60)
    assert [update.status for update in kept.updates[2:]] == texts
    described = await orchestrator.handle(job.id).describe()
    assert described.run_id != first_run
    assert described.history_length < 10_240  # where Temporal begins to warn
    await orchestrator.report(job.id, JobState.SUCCESS, "done")
    ended = await orchestrator.jobs.wait(job.id)
    assert [update.status for update in ended.updates[2:]] == [*texts, "done"]
    assert await orchestrator.is_archived(ended)


async def test_large_texts_are_offloaded_to_the_store(
    orchestrator: Orchestrator,
) -> None:
    job = await orchestrator.created()
    texts = [f"{number} " + "y" * 60_000 for number in range(20)]
    assert sum(map(len, texts)) > 2 * HELD_UPDATE_BYTES
    for text in texts:
        await orchestrator.report(job.id, text=text)
    kept = await orchestrator.eventually_said(job.id, texts[-1])
    assert [update.status for update in kept.updates[1:]] == texts
    await orchestrator.reports.update(job.id, [JobUpdate(state=JobState.SUCCESS)])
    assert len((await orchestrator.jobs.wait(job.id)).updates) == 22
