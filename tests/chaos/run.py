"""One run from its seed: the stack, its clients, the faults, and the check of the invariants."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.faults import FaultInjector, schedule
from tests.chaos.invariants import broken_invariants
from tests.chaos.processes import chaos_stack
from tests.chaos.workload import ClientLog, clients
from ucloud_orchestrator.models.product import ProductCategory
from ucloud_orchestrator.models.workspace import Workspace
from ucloud_orchestrator.store import Wallets, connect

CREDITS = 10_000_000


@dataclass(frozen=True)
class Report:
    """The result of a run; `broken` has a sentence for each broken invariant."""

    summary: str
    broken: list[str]


async def run(
    folder: Path, seed: int, faults: int, jobs: int, client_count: int, say: Callable[[str], None]
) -> Report:
    """Inject that many faults while at least that many jobs run, below a folder."""
    say(f"seed {seed}")
    begun = time.monotonic()
    log = ClientLog()
    async with chaos_stack(folder, seed) as stack:
        engine = connect(stack.database.url)
        for user in ("alice", "bob"):
            await Wallets(engine).grant(
                Workspace(user=user), ProductCategory(name="paid", provider="local"), CREDITS
            )
        people = await clients(stack.address, log, client_count, seed)
        is_over = asyncio.Event()
        injector = FaultInjector(stack, say)
        async with asyncio.TaskGroup() as group:
            for person in people:
                group.create_task(person.live_on(is_over, lambda: len(log.accepted) >= jobs))
            await injector.inject(schedule(seed, faults))
            is_over.set()
            say(
                f"all faults are over; {len(log.accepted)} jobs were accepted, {len(log.ended)} "
                "have ended"
            )
        await people[0].one_of_each_kind()  # without faults
        broken = await broken_invariants(stack, engine, log)
        await engine.dispose()
        answers = {kind: count for kind, count in stack.answers.counts.items() if count}
    kinds = ", ".join(
        f"{count} {kind}" for kind, count in sorted(Counter(log.accepted.values()).items())
    )
    summary = (
        f"seed {seed}: {faults} faults, {len(log.accepted)} jobs ({kinds}), {len(log.refused)} "
        "refused "
        f"{dict(Counter(log.refused.values()))}, {log.repeated} answers asked for again, "
        "requests refused "
        f"{log.requests_refused}, answers of the provider {answers}, {len(broken)} broken "
        "invariants, "
        f"{time.monotonic() - begun:.0f} s"
    )
    return Report(summary, broken)
