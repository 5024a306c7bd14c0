"""Inject the faults of a seed while clients create jobs, and check all promises."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.faults import FaultInjector, schedule
from tests.chaos.invariants import find_broken_promises
from tests.chaos.processes import chaos_stack
from tests.chaos.workload import ClientRecords, clients
from ucloud_orchestrator.models.product import ProductCategory
from ucloud_orchestrator.models.workspace import Workspace
from ucloud_orchestrator.store import Wallets, connect

CREDITS = 10_000_000


@dataclass(frozen=True)
class Report:
    """The result of a run; `broken` has a sentence for each promise that was not kept."""

    summary: str
    broken: list[str]


async def run(
    folder: Path, seed: int, faults: int, jobs: int, client_count: int, log: Callable[[str], None]
) -> Report:
    """Inject so many faults while at least so many jobs are created, in a folder."""
    log(f"seed {seed}")
    begun = time.monotonic()
    records = ClientRecords()
    async with chaos_stack(folder, seed) as stack:
        engine = connect(stack.database.url)
        for name in ("alice", "bob"):
            await Wallets(engine).grant(
                Workspace(user=name), ProductCategory(name="paid", provider="local"), CREDITS
            )
        users = await clients(stack.address, records, client_count, seed)
        is_over = asyncio.Event()
        injector = FaultInjector(stack, log)
        async with asyncio.TaskGroup() as group:
            for user in users:
                group.create_task(user.create_jobs(is_over, lambda: len(records.accepted) >= jobs))
            await injector.inject(schedule(seed, faults))
            is_over.set()
            log(f"the faults are over; jobs: {len(records.accepted)}, ended: {len(records.ended)}")
        await users[0].complete_jobs()  # without faults
        broken = await find_broken_promises(stack, engine, records)
        await engine.dispose()
        answers = {kind: count for kind, count in stack.answers.counts.items() if count}
    accepted, rejected = records.accepted.values(), records.rejected.values()
    summary = ", ".join(
        [
            f"seed {seed}: {faults} faults",
            f"{len(accepted)} jobs {dict(sorted(Counter(accepted).items()))}",
            f"{len(rejected)} rejected {dict(Counter(rejected))}",
            f"{records.repeated} repeated calls",
            f"requests rejected {records.requests_rejected}",
            f"answers of the provider {answers}",
            f"{len(broken)} broken promises",
            f"{time.monotonic() - begun:.0f} s",
        ]
    )
    return Report(summary, broken)
