"""Kill the worker at random moments while jobs of every kind are admitted, rejected and settled.

`UCLOUD_TEST_KILLS` is the number of kills (3), `UCLOUD_TEST_SEED` repeats a schedule.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from client import Actor, JobClient, JobClosed, JobRejected, ProviderClient, Unreachable
from tests.builders import CPU, PAID, specification
from tests.end_to_end.test_killed_worker import worker  # noqa: F401 - a fixture
from tests.end_to_end.worker_process import WorkerProcess
from tests.fake_provider import FakeProvider
from tests.store.ledger_assertions import check_ledger
from ucloud_orchestrator.models import ErrorCode, JobSpecification, JobState, JobUpdate
from ucloud_orchestrator.models.product import ProductCategory
from ucloud_orchestrator.models.provider_api import Charge
from ucloud_orchestrator.models.workspace import Workspace
from ucloud_orchestrator.store import Archive, Wallets, connect

pytestmark = pytest.mark.long

Value = TypeVar("Value")
KILLS = int(os.environ.get("UCLOUD_TEST_KILLS", "3"))
CREDITS = 100_000
CHARGE = [Charge(charge_id="1", units=1, periods=1)]
KINDS = ("free", "paid", "link", "too expensive", "rejected", "batch")


def specification_of(kind: str, **changes: Any) -> JobSpecification:
    asked = {
        "product": PAID if kind in {"paid", "too expensive", "rejected", "batch"} else CPU,
        "allowDuplicateJob": True,
        "timeAllocation": {"hours": 10_000 if kind == "too expensive" else 1},
        "resources": [{"type": "ingress", "id": "app-link"}]
        if kind in {"link", "rejected"}
        else [],
    }
    return specification("server", **asked | changes)


class Users:
    """Users who create jobs of all kinds, one after the other, and the provider that ends them."""

    def __init__(self, temporal: Client, provider: FakeProvider, seed: int) -> None:
        self.ended: dict[str, list[str]] = {kind: [] for kind in KINDS}
        self.rejections: list[ErrorCode] = []
        self._provider = provider
        self._seed = seed
        self._jobs = JobClient(temporal, Actor(username="alice"))
        self._reports = ProviderClient(temporal, "local")

    async def create_jobs(self, index: int, until: asyncio.Event) -> None:
        """Bring one job after the other to its end until the event is set."""
        chance = random.Random(self._seed + index)
        while not until.is_set():
            await self.complete_one(chance.choice(KINDS))

    async def complete_one(self, kind: str) -> None:
        """Create a job or a batch, charge it twice with one id, and end it."""
        if kind == "rejected":
            self._provider.answers["create"].append(400)
        try:
            job_ids = await self._create(kind)
        except JobRejected as rejection:
            self.rejections.append(rejection.code)
            return
        for job_id in job_ids:
            for _ in range(2):
                await _retried(lambda job_id=job_id: self._reports.charge(job_id, CHARGE))
            await _retried(lambda job_id=job_id: self._report_success(job_id))
            await _retried(lambda job_id=job_id: self._jobs.wait(job_id))
            self.ended[kind].append(job_id)

    async def _create(self, kind: str) -> list[str]:
        job_id, asked = self._jobs.new_job_id(), specification_of(kind)
        if kind == "batch":
            jobs = await _retried(lambda: self._jobs.create_many([asked] * 3, job_id))
            return [job.id for job in jobs]
        return [(await _retried(lambda: self._jobs.create(asked, job_id))).id]

    async def _report_success(self, job_id: str) -> None:
        with contextlib.suppress(JobClosed):
            await self._reports.update(job_id, [JobUpdate(state=JobState.SUCCESS)])


@pytest.mark.timeout(120 + 10 * KILLS)
async def test_random_kills_leave_no_claim_or_reservation(
    environment: WorkflowEnvironment,
    provider: FakeProvider,
    worker: WorkerProcess,  # noqa: F811
) -> None:
    seed = int(os.environ.get("UCLOUD_TEST_SEED", time.time_ns() % 1_000_000))
    print(f"UCLOUD_TEST_SEED={seed}")
    engine = connect(f"sqlite+aiosqlite:///{worker.database}")
    category = ProductCategory(name="paid", provider="local")
    await Wallets(engine).grant(Workspace(user="alice"), category, CREDITS)
    users, is_over = Users(environment.client, provider, seed), asyncio.Event()
    running = [asyncio.create_task(users.create_jobs(index, is_over)) for index in range(8)]
    chance = random.Random(seed)
    for _ in range(KILLS):
        await asyncio.sleep(chance.uniform(0.0, 1.5))
        await worker.kill()
        await worker.start()
    is_over.set()
    await asyncio.gather(*running)
    provider.answers["create"].clear()  # rejections that no job has met
    await asyncio.gather(*map(users.complete_one, ("free", "paid", "link", "batch")))
    await check_store(engine, users.ended)
    await engine.dispose()
    counts = {kind: len(job_ids) for kind, job_ids in users.ended.items()}
    print(f"{KILLS} kills; ended: {counts}; rejected: {len(users.rejections)}")
    assert all(counts[kind] for kind in ("free", "paid", "link", "batch"))


async def check_store(engine: AsyncEngine, ended: dict[str, list[str]]) -> None:
    """Check that nothing is held, that all ended jobs are archived, and what was paid for them."""
    await check_ledger(engine)
    async with engine.connect() as connection:
        for table in ("live_jobs", "bindings", "reservations"):
            assert (await connection.execute(text(f"SELECT * FROM {table}"))).all() == []
    archived = [
        await Archive(engine).retrieve_without_updates(job_id)
        for job_ids in ended.values()
        for job_id in job_ids
    ]
    assert all(archived)
    (wallet,) = await Wallets(engine).browse(Workspace(user="alice"))
    assert wallet.reserved == 0
    assert wallet.available + wallet.spent == CREDITS
    # A rejection meant for one job may have met another: the price says which were accepted.
    paid = [job for job in archived if job and job.billing.price_per_unit > 0]
    assert len(paid) >= len(ended["paid"]) + len(ended["batch"])
    assert wallet.spent == 3 * len(paid)


async def _retried(action: Callable[[], Awaitable[Value]]) -> Value:
    """Repeat the call for as long as it gets no answer."""
    while True:
        try:
            return await action()
        except Unreachable:
            await asyncio.sleep(0.1)
