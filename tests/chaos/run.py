"""One storm from its seed: the stack, the clients in it, the faults, and the look at the world
afterwards.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.faults import Storm, schedule
from tests.chaos.invariants import look
from tests.chaos.processes import storm_stack
from tests.chaos.workload import Told, clients
from ucloud_orchestrator.models.product import ProductCategory
from ucloud_orchestrator.models.workspace import Workspace
from ucloud_orchestrator.store import Wallets, connect

CREDITS = 10_000_000


@dataclass(frozen=True)
class Report:
    """What a storm showed; `broken` has a sentence for each promise that was not kept."""

    summary: str
    broken: list[str]


async def run(
    folder: Path, seed: int, faults: int, jobs: int, client_count: int, say: Callable[[str], None]
) -> Report:
    """Let that many faults come over at least that many jobs, below a folder."""
    say(f"seed {seed}")
    begun = time.monotonic()
    told = Told()
    async with storm_stack(folder, seed) as stack:
        engine = connect(stack.database.url)
        for user in ("alice", "bob"):
            await Wallets(engine).grant(
                Workspace(user=user), ProductCategory(name="paid", provider="local"), CREDITS
            )
        people = await clients(stack.address, told, client_count, seed)
        is_over = asyncio.Event()
        storm = Storm(stack, say)
        async with asyncio.TaskGroup() as group:
            for person in people:
                group.create_task(person.live_on(is_over, lambda: len(told.accepted) >= jobs))
            await storm.rage(schedule(seed, faults))
            is_over.set()
            say(
                f"the storm is over; {len(told.accepted)} jobs were accepted, {len(told.ended)} "
                "have ended"
            )
        await people[0].one_of_each_kind()  # in fair weather
        broken = await look(stack, engine, told)
        await engine.dispose()
        answers = {kind: count for kind, count in stack.answers.counts.items() if count}
    kinds = ", ".join(
        f"{count} {kind}" for kind, count in sorted(Counter(told.accepted.values()).items())
    )
    summary = (
        f"seed {seed}: {faults} faults, {len(told.accepted)} jobs ({kinds}), {len(told.refused)} "
        "refused "
        f"{dict(Counter(told.refused.values()))}, {told.repeated} answers asked for again, "
        "requests refused "
        f"{told.requests_refused}, answers of the provider {answers}, {len(broken)} broken "
        "promises, "
        f"{time.monotonic() - begun:.0f} s"
    )
    return Report(summary, broken)
