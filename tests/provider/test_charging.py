"""What the provider charges for, and what it does without credits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.protocol import Charge
from tests.conditions import eventually
from tests.provider.served import Reports, Served, serving, shell

PRICED = {"name": "cpu-1", "category": {"name": "cpu", "provider": "local"}, "pricePerUnit": 1}


def paid(job: dict[str, Any]) -> dict[str, Any]:
    return job | {"status": job["status"] | {"resolvedProduct": PRICED}}


async def test_a_job_is_charged_before_its_end_is_reported(provider: Served) -> None:
    job, free = paid(shell("true", replicas=2)), shell("true")
    provider.reports.is_down = True
    await provider.call("", job, free)
    await eventually(lambda: not (provider.folder / "provider" / "jobs" / job["id"]).exists())
    provider.reports.is_down = False
    await provider.end_of(job)
    await provider.end_of(free)
    assert provider.reports.charges == {job["id"]: [Charge(charge_id="1-1", units=1, periods=2)]}


async def test_a_job_without_credits_is_stopped(tmp_path: Path) -> None:
    served = Served(tmp_path, Reports())
    served.settings = served.settings.model_copy(update={"charge_interval": 0.5})
    served.reports.is_broke = True
    job = paid(shell("sleep 300"))
    async with serving(served):
        await served.call("", job)
        await served.end_of(job)
        texts = [update.status for update in served.reports.taken[job["id"]]]
        assert "Your job has been terminated (No more credits)." in texts
        assert served.processes_of(job) == []
