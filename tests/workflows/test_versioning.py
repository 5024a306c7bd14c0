"""What a release begins, and what it holds back for the release before."""

from __future__ import annotations

import ast
import json
import tomllib
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory

import workflows
from tests.conftest import Orchestrator
from ucloud_orchestrator.models import JobState, SimpleDuration
from workflows import versioning

ROOT = Path(workflows.__file__).parent.parent


def asked_for() -> list[str]:
    """The argument of each `workflow.patched` and `workflow.deprecate_patch` in the code, as it is
    written.
    """
    return [
        ast.unparse(node.args[0])
        for file in (ROOT / "workflows").glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in {"workflow.patched", "workflow.deprecate_patch"}
    ]


def test_every_patch_of_the_code_is_in_the_table_and_the_other_way_round() -> None:
    assert sorted(map(ast.literal_eval, asked_for())) == sorted(versioning.PATCHES)


def test_the_table_names_releases_up_to_this_one() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version.startswith(f"{versioning.RELEASE}.")
    assert versioning.inactive_patches(versioning.RELEASE) == []
    assert versioning.inactive_patches("0.1") == list(versioning.PATCHES)


@pytest.mark.parametrize("beside", [None, "0.2", "0.1"])
async def test_a_job_begins_nothing_that_the_other_release_does_not_know(
    orchestrator: Orchestrator, beside: str | None
) -> None:
    await orchestrator.stop_worker()
    async with orchestrator.another_worker(compatible_with=beside):
        job = await orchestrator.created()
        await orchestrator.jobs.extend(job.id, SimpleDuration(hours=1))
        await orchestrator.report(job.id, JobState.SUCCESS)
        await orchestrator.jobs.wait(job.id)
    assert begun(await orchestrator.handle(job.id).fetch_history()) == (
        [] if beside == "0.1" else ["extension-is-paid"]
    )


async def test_what_a_job_has_begun_goes_on_where_it_would_not_be_begun(
    orchestrator: Orchestrator,
) -> None:
    job, other = await orchestrator.created(), await orchestrator.created()
    await orchestrator.jobs.extend(job.id, SimpleDuration(hours=1))
    await orchestrator.stop_worker()
    async with orchestrator.another_worker(compatible_with="0.1"):
        for one in (job, other):
            await orchestrator.jobs.extend(one.id, SimpleDuration(hours=1))
            await orchestrator.report(one.id, JobState.SUCCESS)
            await orchestrator.jobs.wait(one.id)
    histories = [await orchestrator.handle(one.id).fetch_history() for one in (job, other)]
    assert [begun(history) for history in histories] == [["extension-is-paid"], []]
    for history in histories:
        assert not any(
            event.HasField("workflow_task_failed_event_attributes") for event in history.events
        )


def begun(history: WorkflowHistory) -> list[str]:
    """The patches that a job has begun."""
    markers = [event.marker_recorded_event_attributes for event in history.events]
    return [
        json.loads(marker.details["patch-data"].payloads[0].data)["id"]
        for marker in markers
        if marker.marker_name == "core_patch"
    ]
