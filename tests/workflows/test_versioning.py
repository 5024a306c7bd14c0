"""Patches: which a worker begins, and which stay inactive beside an older release."""

from __future__ import annotations

import ast
import json
import tomllib
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory

import workflows
from tests import next_release
from tests.conftest import Orchestrator
from ucloud_orchestrator.models import JobState, SimpleDuration
from workflows import versioning

ROOT = Path(workflows.__file__).parent.parent
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
THIS_RELEASE = ".".join(VERSION.split(".")[:2])
"""As in `UCLOUD_COMPATIBLE_WITH`."""


@pytest.fixture
def next_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the workflows of the next release in this process's workers."""
    monkeypatch.setattr(workflows, "WORKFLOWS", next_release.WORKFLOWS)
    monkeypatch.setitem(versioning.PATCHES, next_release.PATCH, next_release.RELEASE)


def patches_in_code() -> list[str]:
    """Return the argument of each `workflow.patched` and `workflow.deprecate_patch`."""
    return [
        ast.literal_eval(node.args[0])
        for file in (ROOT / "workflows").glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in {"workflow.patched", "workflow.deprecate_patch"}
    ]


def test_the_table_lists_every_patch_in_the_code() -> None:
    assert sorted(patches_in_code()) == sorted(versioning.PATCHES)


def test_no_patch_is_later_than_this_release() -> None:
    assert versioning.inactive_patches(THIS_RELEASE) == []


def test_a_patch_is_inactive_beside_an_older_release(next_worker: None) -> None:
    assert versioning.inactive_patches(THIS_RELEASE) == [next_release.PATCH]
    assert versioning.inactive_patches(next_release.RELEASE) == []
    assert versioning.inactive_patches("100.0") == []


@pytest.mark.parametrize("compatible_with", [None, next_release.RELEASE, THIS_RELEASE])
async def test_a_job_begins_only_patches_of_the_compatible_release(
    orchestrator: Orchestrator, next_worker: None, compatible_with: str | None
) -> None:
    await orchestrator.stop_worker()
    async with orchestrator.another_worker(compatible_with=compatible_with):
        job = await orchestrator.created()
        await orchestrator.jobs.extend(job.id, SimpleDuration(hours=1))
        await orchestrator.report(job.id, JobState.SUCCESS)
        await orchestrator.jobs.wait(job.id)
    expected = [] if compatible_with == THIS_RELEASE else [next_release.PATCH]
    assert begun(await orchestrator.handle(job.id).fetch_history()) == expected


async def test_a_begun_patch_stays_active_where_it_would_not_begin(
    orchestrator: Orchestrator, next_worker: None
) -> None:
    await orchestrator.stop_worker()
    async with orchestrator.another_worker():
        job, other = await orchestrator.created(), await orchestrator.created()
        await orchestrator.jobs.extend(job.id, SimpleDuration(hours=1))
    async with orchestrator.another_worker(compatible_with=THIS_RELEASE):
        for one in (job, other):
            await orchestrator.jobs.extend(one.id, SimpleDuration(hours=1))
            await orchestrator.report(one.id, JobState.SUCCESS)
            await orchestrator.jobs.wait(one.id)
    histories = [await orchestrator.handle(one.id).fetch_history() for one in (job, other)]
    assert [begun(history) for history in histories] == [[next_release.PATCH], []]
    for history in histories:
        assert not any(
            event.HasField("workflow_task_failed_event_attributes") for event in history.events
        )


def begun(history: WorkflowHistory) -> list[str]:
    """Return the patches in a job's history."""
    markers = [event.marker_recorded_event_attributes for event in history.events]
    return [
        json.loads(marker.details["patch-data"].payloads[0].data)["id"]
        for marker in markers
        if marker.marker_name == "core_patch"
    ]
