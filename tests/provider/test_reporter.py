"""Failed deliveries of one job delay no other job's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.builders import shell_job
from tests.provider.provider_process import Reports, Served, serving
from tests.provider.test_charging import paid
from tests.waiting import eventually
from ucloud_orchestrator.models import JobState, JobUpdate
from ucloud_orchestrator.models.provider_api import Charge, ChargeAnswer
from ucloud_orchestrator.provider.jobs import reporter


class OneStuck(Reports):
    """Does not take the charges of one job, until it is mended."""

    def __init__(self, stuck: Callable[[], Awaitable[Any]]) -> None:
        super().__init__()
        self.stuck_job: str | None = None
        self.attempts = 0
        self._stuck = stuck

    async def charge(self, job_id: str, charges: Sequence[Charge]) -> ChargeAnswer:
        if job_id == self.stuck_job:
            self.attempts += 1
            await self._stuck()
        return await super().charge(job_id, charges)


async def fail() -> None:
    raise ConnectionError("The workflow's tasks fail.")


async def hang() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("stuck", [fail, hang])
async def test_a_job_whose_charges_are_not_taken_holds_up_no_other(
    tmp_path: Path, stuck: Callable[[], Awaitable[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporter, "TIMEOUT", 1.0)
    reports = OneStuck(stuck)
    served, job = Served(tmp_path, reports), paid(shell_job("true"))
    reports.stuck_job = job["id"]
    async with serving(served):
        await served.call("", job)
        # The fourth failed attempt is followed by a backoff of four seconds.
        await eventually(lambda: reports.attempts == 4)
        for _ in range(2):
            other = paid(shell_job("true"))
            await served.call("", other)
            assert await eventually(lambda other=other: reports.ended(other["id"]), 3)
        assert reports.ended(job["id"]) is None
        reports.stuck_job = None
        end = await served.end_of(job)
        assert end.state is JobState.SUCCESS
        assert [charge.charge_id for charge in reports.charges[job["id"]]] == ["1-1"]


async def test_the_reports_of_a_job_keep_their_order_over_failed_deliveries(tmp_path: Path) -> None:
    class Failing(Reports):
        attempts = 0

        async def update(self, job_id: str, updates: Sequence[JobUpdate]) -> None:
            self.attempts += 1
            if self.attempts % 2:
                raise ConnectionError("down")
            await super().update(job_id, updates)

    reports = Failing()
    served, job = Served(tmp_path, reports), shell_job("sleep 300")
    async with serving(served):
        await served.call("", job)
        await eventually(lambda: served.still_runs(job))
        calls = ["suspend", "unsuspend"] * 2
        for call in calls:
            await served.call(call, {"job": job})
        await served.call("terminate", job)
        await served.end_of(job)
    states = [update.state for update in reports.updates[job["id"]]]
    assert [state for state in states if state is JobState.SUSPENDED] == [JobState.SUSPENDED] * 2
    first = states.index(JobState.SUSPENDED)
    assert states[first : first + 4] == [JobState.SUSPENDED, JobState.RUNNING] * 2
    assert states[-1] is JobState.SUCCESS
