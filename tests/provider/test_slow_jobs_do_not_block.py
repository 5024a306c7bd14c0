"""One job that takes long, or whose passes fail, blocks no other."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.builders import shell_job
from tests.provider.provider_process import Reports, Served, serving
from tests.waiting import eventually
from ucloud_orchestrator.models import JobState
from ucloud_orchestrator.provider.executors.local import LocalExecutor
from ucloud_orchestrator.provider.files import output_files, trees
from ucloud_orchestrator.provider.network.networks import Networks
from ucloud_orchestrator.provider.sandbox import bubblewrap


class Block:
    """Holds what is done with the files of one job."""

    def __init__(self) -> None:
        self.job_id = ""
        self.released = threading.Event()
        self.began = threading.Event()

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def blocked(folder: Path, *arguments: Any) -> Any:
            if self.job_id in folder.parts:
                self.began.set()
                self.released.wait(60)
            return function(folder, *arguments)

        return blocked


@pytest.fixture
def block() -> Iterator[Block]:
    made = Block()
    yield made
    made.released.set()


@pytest.mark.parametrize(
    ("module", "step"),
    [(bubblewrap, "prepare_work"), (output_files, "collect"), (trees, "delete_tree")],
)
async def test_a_job_with_many_files_blocks_no_other(
    provider: Served, block: Block, monkeypatch: pytest.MonkeyPatch, module: ModuleType, step: str
) -> None:
    job, other, third = shell_job("true"), shell_job("sleep 300"), shell_job("true")
    block.job_id = job["id"]
    monkeypatch.setattr(module, step, block.before(getattr(module, step)))
    await provider.call("", other)
    await eventually(lambda: provider.still_runs(other))
    await provider.call("", job)
    await eventually(block.began.is_set)
    await provider.call("", third)
    await provider.end_of(third)
    await provider.call("terminate", other)
    await provider.end_of(other)
    assert not block.released.is_set()
    block.released.set()
    assert (await provider.end_of(job)).state is JobState.SUCCESS
    await eventually(lambda: not (provider.folder / "provider" / "jobs" / job["id"]).exists())


async def test_a_terminate_during_a_long_start_is_kept(
    provider: Served, block: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = shell_job("sleep 300")
    block.job_id = job["id"]
    monkeypatch.setattr(bubblewrap, "prepare_work", block.before(bubblewrap.prepare_work))
    await provider.call("", job)
    await eventually(block.began.is_set)
    await provider.call("terminate", job)
    block.released.set()
    assert "cancelled" in ((await provider.end_of(job)).status or "")
    await eventually(lambda: not provider.processes_of(job))


async def test_a_provider_stops_while_files_are_deleted(
    tmp_path: Path, block: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, job = Served(tmp_path, Reports()), shell_job("true")
    block.job_id = job["id"]
    with monkeypatch.context() as patch:
        patch.setattr(trees, "delete_tree", block.before(trees.delete_tree))
        async with serving(served):
            await served.call("", job)
            await served.end_of(job)
            await eventually(block.began.is_set)
    assert not block.released.is_set()
    async with serving(served):
        await eventually(lambda: not (tmp_path / "provider" / "jobs" / job["id"]).exists())


async def test_an_error_of_every_pass_is_logged_once(
    provider: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job, attempts = shell_job("true"), []
    observe = LocalExecutor.observe

    def failing(executor: LocalExecutor, asked: Any) -> Any:
        if asked.id == job["id"] and len(attempts) < 3:
            attempts.append(asked.id)
            raise PermissionError("not yours")
        return observe(executor, asked)

    monkeypatch.setattr(LocalExecutor, "observe", failing)
    with caplog.at_level(logging.ERROR, "ucloud_orchestrator.provider.jobs.reconciler"):
        await provider.call("", job)
        await provider.end_of(job)
    assert len(attempts) == 3
    assert [str((record.exc_info or ("", ""))[1]) for record in caplog.records] == ["not yours"]


async def test_jobs_run_where_what_others_left_cannot_be_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise OSError("Stale file handle")

    monkeypatch.setattr(Networks, "remove_leftovers", fail)
    served, job = Served(tmp_path, Reports()), shell_job("true")
    async with serving(served):
        await served.call("", job)
        assert (await served.end_of(job)).state is JobState.SUCCESS
