"""Recorded histories must replay with today's code.

`pytest tests/workflows/test_replay.py --record-histories` records each life that has no history.
"""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from temporalio import workflow
from temporalio.client import WorkflowExecution, WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from client import Actor, JobClient, JobRejected
from tests import next_release
from tests.conftest import Orchestrator
from tests.waiting import eventually
from ucloud_orchestrator.models import JobState, JobUpdate, SimpleDuration
from ucloud_orchestrator.models.messages import ProviderCheckRequest
from ucloud_orchestrator.models.product import ProductCategory
from ucloud_orchestrator.models.provider_api import Charge
from ucloud_orchestrator.models.workspace import Workspace
from ucloud_orchestrator.temporal.names import (
    PROVIDER_CHECK_WORKFLOW,
    TASK_QUEUE,
    new_job_id,
    provider_check_id,
)
from workflows import WORKFLOWS
from workflows.argument_interceptor import DropSurplusArguments

HISTORIES = Path(__file__).parent / "histories"
EXTENDED = HISTORIES / "extension_suspension_and_cancel.json.gz"
PURE = (
    "ucloud_orchestrator",
    "activities",
    "pydantic",
    "pydantic_core",
    "httpx",
    "jwt",
    "opentelemetry",
)
"""Modules that the sandbox does not reload. Only these tests use the sandbox (decision 0011)."""


def replayer(workflows: Sequence[type] = WORKFLOWS) -> Replayer:
    return Replayer(
        workflows=workflows,
        data_converter=pydantic_data_converter,
        interceptors=[DropSurplusArguments()],
        workflow_runner=SandboxedWorkflowRunner(
            SandboxRestrictions.default.with_passthrough_modules(*PURE)
        ),
    )


@pytest.mark.parametrize("file", sorted(HISTORIES.glob("*.json.gz")), ids=lambda file: file.name)
async def test_a_recorded_history_replays(file: Path) -> None:
    await replayer().replay_workflow(recorded(file))


def test_every_life_has_a_recorded_history() -> None:
    recorded_names = {file.name.removesuffix(".json.gz") for file in HISTORIES.glob("*.json.gz")}
    missing = {life.__name__ for life in LIVES} - recorded_names
    assert not missing, "record them with 'make histories' (docs/operators/upgrades.md)"


async def test_a_change_behind_a_patch_replays_older_histories() -> None:
    await replayer(next_release.WORKFLOWS).replay_workflow(recorded(EXTENDED))


async def test_a_change_without_a_patch_fails_the_replay() -> None:
    workflows = [next_release.UnguardedJobWorkflow]
    with pytest.raises(workflow.NondeterminismError, match="TMPRL1100"):
        await replayer(workflows).replay_workflow(recorded(EXTENDED))


async def success(orchestrator: Orchestrator) -> str:
    job = await orchestrator.created()
    await orchestrator.report(job.id, JobState.RUNNING, "Your job is now running.")
    await orchestrator.reached(job.id, JobState.RUNNING)
    await orchestrator.report(job.id, JobState.SUCCESS, "The job has finished.")
    return job.id


async def rejection(orchestrator: Orchestrator) -> str:
    orchestrator.provider.answers["create"] = [503, 400]
    job_id = orchestrator.jobs.new_job_id()
    with pytest.raises(JobRejected):
        await orchestrator.jobs.create(orchestrator.specification(), job_id)
    return job_id


async def extension_suspension_and_cancel(orchestrator: Orchestrator) -> str:
    job = await orchestrator.created()
    await orchestrator.report(job.id, JobState.RUNNING)
    await orchestrator.reached(job.id, JobState.RUNNING)
    await orchestrator.jobs.extend(job.id, SimpleDuration(hours=1))
    await orchestrator.jobs.suspend(job.id)
    await orchestrator.report(job.id, JobState.SUSPENDED)
    await orchestrator.jobs.unsuspend(job.id)
    await orchestrator.jobs.cancel(job.id, "by a test")
    await orchestrator.reached(job.id, JobState.CANCELING)
    await orchestrator.report(job.id, JobState.SUCCESS)
    return job.id


async def expiry(orchestrator: Orchestrator) -> str:
    job = await orchestrator.created(timeAllocation={"hours": 0, "minutes": 0, "seconds": 1})
    await orchestrator.report(job.id, JobState.RUNNING)
    await orchestrator.jobs.wait(job.id)
    return job.id


async def continuation(orchestrator: Orchestrator) -> str:
    job = await orchestrator.created()
    first_run = (await orchestrator.handle(job.id).describe()).run_id
    texts = [JobUpdate(status=f"{number} " + 10_000 * "x") for number in range(60)]
    for start in range(0, len(texts), 10):
        await orchestrator.reports.update(job.id, texts[start : start + 10])

    async def has_continued() -> bool:
        return (await orchestrator.handle(job.id).describe()).run_id != first_run

    await eventually(has_continued)
    await orchestrator.report(job.id, JobState.SUCCESS)
    return job.id


async def charges(orchestrator: Orchestrator) -> str:
    category = ProductCategory(name="paid", provider="local")
    await orchestrator.jobs.grant(Workspace(user="alice"), category, 200)
    job = await orchestrator.created(
        product={"id": "paid-1", "category": "paid", "provider": "local"}
    )
    await orchestrator.reports.charge(job.id, [Charge(charge_id="1", units=10, periods=1)])
    await orchestrator.reports.charge(job.id, [Charge(charge_id="2", units=100, periods=1)])
    await orchestrator.jobs.rename(job.id, "Renamed")
    await orchestrator.jobs.update_acl(job.id, [])
    await orchestrator.report(job.id, JobState.SUCCESS)
    return job.id


async def batch(orchestrator: Orchestrator) -> str:
    jobs = await orchestrator.jobs.create_many([orchestrator.specification() for _ in range(2)])
    await orchestrator.report(jobs[0].id, JobState.SUCCESS)
    return "batch-" + jobs[0].id.removesuffix("-000")


async def job_of_a_batch(orchestrator: Orchestrator) -> str:
    return (await batch(orchestrator)).removeprefix("batch-") + "-000"


async def paid_expiry(orchestrator: Orchestrator) -> str:
    category = ProductCategory(name="paid", provider="local")
    await orchestrator.jobs.grant(Workspace(user="alice"), category, 200)
    job = await orchestrator.created(
        product={"id": "paid-1", "category": "paid", "provider": "local"},
        timeAllocation={"hours": 0, "minutes": 0, "seconds": 1},
    )
    await orchestrator.report(job.id, JobState.RUNNING)
    await orchestrator.reached(job.id, JobState.EXPIRED)
    await orchestrator.reports.charge(job.id, [Charge(charge_id="1", units=1, periods=1)])
    await orchestrator.report(job.id, JobState.SUCCESS)
    return job.id


async def cancelled_batch(orchestrator: Orchestrator) -> str:
    """One job leaves while a provider is away, then the whole batch is cancelled."""
    orchestrator.provider.answers["second:create"] = [503] * 1000
    second = orchestrator.specification(
        product={"id": "cpu-2", "category": "cpu", "provider": "second"}
    )
    batch_id = orchestrator.jobs.new_job_id()
    creating = asyncio.create_task(
        orchestrator.jobs.create_many([orchestrator.specification(), second], batch_id)
    )
    await eventually(lambda: {"create", "second:create"} <= set(orchestrator.provider.requests))
    await orchestrator.jobs.cancel(f"{batch_id}-000")
    await eventually(lambda: "terminate" in orchestrator.provider.calls_for(f"{batch_id}-000"))
    await orchestrator.temporal.get_workflow_handle(f"batch-{batch_id}").cancel()
    await creating
    await orchestrator.report(f"{batch_id}-000", JobState.SUCCESS)
    return f"batch-{batch_id}"


async def job_that_left_its_batch(orchestrator: Orchestrator) -> str:
    return (await cancelled_batch(orchestrator)).removeprefix("batch-") + "-000"


async def job_of_a_cancelled_batch(orchestrator: Orchestrator) -> str:
    return (await cancelled_batch(orchestrator)).removeprefix("batch-") + "-001"


async def check_of_a_provider(orchestrator: Orchestrator) -> str:
    """The check ends an orphaned job and cancels one whose owner has left its project."""
    in_project = JobClient(orchestrator.temporal, Actor(username="bob", project="ocean"))
    lost = await in_project.create(orchestrator.specification())
    file = orchestrator.catalog / "workspaces.yaml"
    lines = [line for line in file.read_text().splitlines() if "bob" not in line and line != "acl:"]
    file.write_text("\n".join(lines))

    async def check() -> str | None:
        abandoned = await orchestrator.created()
        await orchestrator.handle(abandoned.id).terminate()
        check_id = f"{provider_check_id('local')}-{new_job_id()}"
        request = ProviderCheckRequest(provider="local")
        cancelled = await orchestrator.temporal.execute_workflow(
            PROVIDER_CHECK_WORKFLOW, request, id=check_id, task_queue=TASK_QUEUE
        )
        assert "terminate" in orchestrator.provider.calls_for(abandoned.id)
        return check_id if cancelled else None

    check_id = await eventually(check)  # the worker sees the file's change within a second
    assert check_id is not None
    await eventually(lambda: "terminate" in orchestrator.provider.calls_for(lost.id))
    await orchestrator.report(lost.id, JobState.SUCCESS)
    return check_id


LIVES: list[Callable[[Orchestrator], Awaitable[str]]] = [
    success,
    rejection,
    extension_suspension_and_cancel,
    expiry,
    continuation,
    charges,
    batch,
    job_of_a_batch,
    paid_expiry,
    cancelled_batch,
    job_that_left_its_batch,
    job_of_a_cancelled_batch,
    check_of_a_provider,
]


@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.__name__)
async def test_a_new_history_replays(
    orchestrator: Orchestrator,
    pytestconfig: pytest.Config,
    life: Callable[[Orchestrator], Awaitable[str]],
) -> None:
    job_id = await life(orchestrator)
    await orchestrator.outcome(job_id)

    async def all_runs() -> list[WorkflowExecution]:
        runs = [
            run async for run in orchestrator.temporal.list_workflows(f"WorkflowId = '{job_id}'")
        ]
        return runs if len(runs) > 1 or life is not continuation else []

    runs = await eventually(all_runs)
    for number, run in enumerate(sorted(runs, key=lambda run: run.start_time), start=1):
        history = await orchestrator.temporal.get_workflow_handle(
            job_id, run_id=run.run_id
        ).fetch_history()
        await replayer().replay_workflow(history)
        name = life.__name__ + (f"-{number}" if number > 1 else "")
        if pytestconfig.getoption("record_histories"):
            record(history, HISTORIES / f"{name}.json.gz")


def recorded(file: Path) -> WorkflowHistory:
    return WorkflowHistory.from_json("recorded", gzip.decompress(file.read_bytes()).decode())


def record(history: WorkflowHistory, file: Path) -> None:
    """Write a history without the worker's identity and without stack traces."""
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    anonymous = re.sub(r'"\d+@[^"]+"', '"worker"', history.to_json())
    anonymous = re.sub(r'"stackTrace":\s*"(\\.|[^"\\])*"', '"stackTrace": ""', anonymous)
    file.write_bytes(gzip.compress(anonymous.encode(), mtime=0))
