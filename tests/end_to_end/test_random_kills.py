"""`kill -9` of the worker at random moments, while jobs of every kind are admitted, refused and
settled.

`UCLOUD_TEST_KILLS` says how often (3 unless set), `UCLOUD_TEST_SEED` repeats the schedule of a run.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from typing import Any

import pytest
from sqlalchemy import text
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

KILLS = int(os.environ.get("UCLOUD_TEST_KILLS", "3"))
CREDITS = 100_000
CHARGE = [Charge(charge_id="1", units=1, periods=1)]
KINDS = ("free", "paid", "link", "too expensive", "refused", "batch")


def specification_of(kind: str, **changes: Any) -> JobSpecification:
    asked = {
        "product": PAID if kind in {"paid", "too expensive", "refused", "batch"} else CPU,
        "allowDuplicateJob": True,
        "timeAllocation": {"hours": 10_000 if kind == "too expensive" else 1},
        "resources": [{"type": "ingress", "id": "app-link"}] if kind in {"link", "refused"} else [],
    }
    return specification("server", **asked | changes)


@pytest.mark.timeout(120 + 10 * KILLS)
async def test_kills_at_random_leave_nothing_held(
    environment: WorkflowEnvironment,
    provider: FakeProvider,
    worker: WorkerProcess,  # noqa: F811
) -> None:
    seed = int(os.environ.get("UCLOUD_TEST_SEED", time.time_ns() % 1_000_000))
    print(f"UCLOUD_TEST_SEED={seed}")
    chance = random.Random(seed)
    engine = connect(f"sqlite+aiosqlite:///{worker.database}")
    await Wallets(engine).grant(
        Workspace(user="alice"), ProductCategory(name="paid", provider="local"), CREDITS
    )
    reports = ProviderClient(environment.client, "local")
    jobs = JobClient(environment.client, Actor(username="alice"))
    ended: dict[str, list[str]] = {kind: [] for kind in KINDS}
    refusals: list[ErrorCode] = []
    storm_is_over = asyncio.Event()

    async def asked(action: Any) -> Any:
        """Ask again for as long as there is no answer."""
        while True:
            try:
                return await action()
            except Unreachable:
                await asyncio.sleep(0.1)

    async def live(kind: str) -> None:
        job_id = jobs.new_job_id()
        if kind == "refused":
            provider.answers["create"].append(400)
        try:
            if kind == "batch":
                members = [specification_of(kind)] * 3
                ids = [job.id for job in await asked(lambda: jobs.create_many(members, job_id))]
            else:
                ids = [(await asked(lambda: jobs.create(specification_of(kind), job_id))).id]
        except JobRejected as refusal:
            refusals.append(refusal.code)
            return
        for one in ids:
            for _ in range(2):
                await asked(lambda one=one: reports.charge(one, CHARGE))
            await asked(lambda one=one: report(one))
            await asked(lambda one=one: jobs.wait(one))
            ended[kind].append(one)

    async def report(job_id: str) -> None:
        try:
            await reports.update(job_id, [JobUpdate(state=JobState.SUCCESS)])
        except JobClosed:
            return

    async def live_on(index: int) -> None:
        mine = random.Random(seed + index)
        while not storm_is_over.is_set():
            await live(mine.choice(KINDS))

    lives = [asyncio.create_task(live_on(index)) for index in range(8)]
    for _ in range(KILLS):
        await asyncio.sleep(chance.uniform(0.0, 1.5))
        await worker.kill()
        await worker.start()
    storm_is_over.set()
    await asyncio.gather(*lives)
    provider.answers["create"].clear()  # refusals that nobody has met
    await asyncio.gather(*map(live, ("free", "paid", "link", "batch")))

    await check_ledger(engine)
    async with engine.connect() as connection:
        for table in ("live_jobs", "bindings", "reservations"):
            assert (await connection.execute(text(f"SELECT * FROM {table}"))).all() == []
    wallet = (await Wallets(engine).browse(Workspace(user="alice")))[0]
    paid = len(ended["paid"]) + len(ended["batch"])
    assert wallet.reserved == 0
    assert wallet.available + wallet.spent == CREDITS
    # A refusal meant for one job may have met another; each job that was accepted paid for one
    # minute.
    paid += sum(
        [await is_paid(engine, job_id) for job_id in [*ended["refused"], *ended["too expensive"]]]
    )
    assert wallet.spent == 3 * paid
    for job_id in (job_id for ids in ended.values() for job_id in ids):
        assert await Archive(engine).retrieve_without_updates(job_id)
    await engine.dispose()
    counts = {kind: len(ids) for kind, ids in ended.items()}
    print(f"{KILLS} kills; ended: {counts}; refused: {len(refusals)}")
    assert all(counts[kind] for kind in ("free", "paid", "link", "batch"))


async def is_paid(engine: Any, job_id: str) -> bool:
    job = await Archive(engine).retrieve_without_updates(job_id)
    return job is not None and job.billing.price_per_unit > 0
