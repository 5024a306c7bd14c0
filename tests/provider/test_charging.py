"""What the provider charges for, and what it does without credits."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from tests.builders import resolved_product, shell_job
from tests.provider.provider_process import Reports, Served, serving
from tests.waiting import eventually
from ucloud_orchestrator.models import Job, JobState
from ucloud_orchestrator.models.provider_api import Charge
from ucloud_orchestrator.provider.jobs.reconciler import Reconciler


def paid(job: dict[str, Any], **changes: Any) -> dict[str, Any]:
    priced = resolved_product(**{"pricePerUnit": 1} | changes)
    return job | {"status": job["status"] | {"resolvedProduct": priced}}


async def test_a_job_is_charged_before_its_end_is_reported(provider: Served) -> None:
    job, free = paid(shell_job("true", replicas=2)), shell_job("true")
    provider.reports.is_down = True
    await provider.call("", job, free)
    await eventually(lambda: not (provider.folder / "provider" / "jobs" / job["id"]).exists())
    provider.reports.is_down = False
    await provider.end_of(job)
    await provider.end_of(free)
    assert provider.reports.charges == {job["id"]: [Charge(charge_id="1-1", units=1, periods=2)]}


async def test_what_ended_while_the_provider_was_away_is_charged_until_its_end(
    tmp_path: Path,
) -> None:
    served = Served(tmp_path, Reports())
    job = paid(
        shell_job("while [ ! -e /work/go ]; do sleep 0.05; done"), unitOfPrice="CREDITS_PER_MINUTE"
    )
    folder = tmp_path / "provider" / "jobs" / job["id"]
    async with serving(served):
        await served.call("", job)
        await eventually(lambda: served.still_runs(job))
    (folder / "work" / "go").touch()
    await eventually((folder / "replica-0" / "exit-code").exists)
    # It began an hour ago, and ran for 90 seconds.
    began = time.time() - 3600
    with (
        contextlib.closing(sqlite3.connect(tmp_path / "provider" / "provider.sqlite")) as database,
        database,
    ):
        database.execute("UPDATE meters SET started_at = ?", [int(began * 1000)])
    os.utime(folder / "replica-0" / "exit-code", (began + 90, began + 90))
    async with serving(served):
        await served.end_of(job)
        assert sum(charge.units for charge in served.reports.charges[job["id"]]) == 2


async def test_a_job_that_ends_during_the_pass_that_started_it_is_charged(
    provider: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    charge = Reconciler._charge

    async def late(reconciler: Reconciler, job: Job, until: int, interval: float | None) -> None:
        exit_code = provider.folder / "provider" / "jobs" / job.id / "replica-0" / "exit-code"
        await eventually(exit_code.exists)
        await charge(reconciler, job, until, interval)

    monkeypatch.setattr(Reconciler, "_charge", late)
    job = paid(shell_job("true"))
    answer = (await provider.call("", job)).json()["responses"][0]
    await provider.end_of(job)
    updates = [*(answer.get("updates") or []), *provider.reports.updates[job["id"]]]
    states = [update["state"] if isinstance(update, dict) else update.state for update in updates]
    assert states[0] == JobState.RUNNING
    assert provider.reports.charges == {job["id"]: [Charge(charge_id="1-1", units=1, periods=1)]}
