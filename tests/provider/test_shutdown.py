"""A provider that is asked to stop does so, whatever happens at that moment."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest

from tests.builders import shell_job
from tests.provider.provider_process import Reports, Served, ServedApart
from tests.waiting import eventually
from ucloud_orchestrator.provider.__main__ import STOP_MARGIN, STOP_TIMEOUT
from ucloud_orchestrator.provider.errors import TransientExecutorError
from ucloud_orchestrator.provider.executors.slurm import commands
from ucloud_orchestrator.provider.jobs.database import JobDatabase
from ucloud_orchestrator.provider.jobs.orphans import OrphanCollector
from ucloud_orchestrator.provider.jobs.reconciler import Reconciler
from ucloud_orchestrator.provider.jobs.reporter import Reporter
from ucloud_orchestrator.provider.settings import ProductExecutor, SlurmOptions


@pytest.mark.parametrize("milliseconds", [0, 1, 3, 10, 30])
@pytest.mark.parametrize("name", ["reconciler", "reporter", "orphans"])
async def test_a_cancellation_together_with_a_change_is_not_lost(
    tmp_path: Path, name: str, milliseconds: int
) -> None:
    reports = Reports()
    settings = Served(tmp_path, reports).settings
    database = JobDatabase(settings.data_dir / "provider.sqlite")
    await database.open()
    reconciler = Reconciler(settings, database)
    reporter = Reporter(database, "local", reconciler.has_reports, reconciler.metrics, reports)
    orphans = OrphanCollector(database, "local", 900, reconciler.wake, reports)
    component, notify = {
        "reconciler": (reconciler, reconciler.wake),
        "reporter": (reporter, reconciler.has_reports.set),
        "orphans": (orphans, orphans.request_check),
    }[name]
    task = asyncio.create_task(component.run())
    await asyncio.sleep(milliseconds / 1000)  # the end may come at any moment, while it starts too
    notify()
    task.cancel()
    await asyncio.wait({task}, timeout=5)
    await database.close()
    assert task.cancelled()


@pytest.mark.parametrize(
    ("script", "is_killed"),
    [
        ("sleep 300 & echo $! > {file}; wait", True),
        ("sleep 300 & echo $! > {file}", True),
        ("setsid sleep 300 & echo $! > {file}; wait", False),
    ],
)
async def test_a_command_of_slurm_ends_in_time_together_with_what_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, is_killed: bool
) -> None:
    monkeypatch.setattr(commands, "TIMEOUT", 0.5)
    file, descriptors = tmp_path / "pid", psutil.Process().num_fds()
    async with asyncio.timeout(10):
        with pytest.raises(TransientExecutorError, match="does not answer at the moment"):
            await commands.run("sh", "-c", script.format(file=file))
    started = psutil.Process(int(file.read_text())) if not is_killed else None
    await eventually(lambda: psutil.Process().num_fds() <= descriptors)
    if started is None:
        await eventually(lambda: not psutil.pid_exists(int(file.read_text())))
    else:
        started.kill()


@pytest.mark.long
async def test_a_provider_ends_while_slurm_takes_a_job_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = Served(tmp_path, Reports())
    executor = ProductExecutor(
        product="cpu-1", category="cpu", executor="slurm", slurm=SlurmOptions(partition="main")
    )
    served.settings = served.settings.model_copy(update={"executors": [executor]})
    commands, asked = tmp_path / "commands", tmp_path / "asked"
    commands.mkdir()
    for name, script in {
        "sbatch": f"echo $$ > {asked}; exec sleep 300",
        "squeue": "exit 0",
    }.items():
        (commands / name).write_text(f"#!/bin/sh\n{script}\n")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(commands), prepend=":")
    apart = ServedApart(served)
    await served.call("", shell_job("true"))
    await eventually(lambda: asked.exists() and asked.read_text().endswith("\n"))
    assert await asyncio.to_thread(apart.terminate, STOP_TIMEOUT + STOP_MARGIN + 20) == 0
    psutil.Process(int(asked.read_text())).kill()
