"""The loads: many jobs at once, and what each of them took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from statistics import mean, median

from temporalio.client import Client

from benchmarks.kinds import Kind
from benchmarks.processes import Measured
from client import JobClient

VISIBLE_TIMEOUT = 60.0


@dataclass
class Round:
    """One load of one kind; times in milliseconds, history sizes in bytes, CPU in seconds per
    job.
    """

    kind: str
    concurrent: int
    jobs: int
    seconds: float = 0.0
    create: list[float] = field(default_factory=list)
    visible: list[float] = field(default_factory=list)
    events: float = 0.0
    history_bytes: float = 0.0
    worker_cpu: float = 0.0
    server_cpu: float = 0.0
    worker_calls: float = 0.0

    @property
    def per_second(self) -> float:
        """Jobs that ended in one second."""
        return self.jobs / self.seconds


async def many(count: int, concurrent: int, one: Callable[[int], Awaitable[None]]) -> float:
    """Do it so many times, so many at once; returns the seconds that it took."""
    numbers = iter(range(count))

    async def go_on() -> None:
        for number in numbers:
            await one(number)

    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrent, count)):
            group.create_task(go_on())
    return time.perf_counter() - start


async def whole_jobs(
    kind: Kind, temporal: Client, measured: Measured, concurrent: int, jobs: int
) -> Round:
    """Run whole jobs, without looking at them while they run."""
    done = Round(kind.name, concurrent, jobs)
    ids = [JobClient.new_job_id() for _ in range(jobs)]

    async def one(number: int) -> None:
        begun = time.perf_counter()
        await kind.create(ids[number])
        done.create.append(_since(begun))
        for update in (0, 1):
            await kind.report(ids[number], update)
        await kind.ended(ids[number])

    worker = measured.worker if kind.worker == "worker" else measured.floor
    before = (
        measured.cpu_seconds(worker),
        measured.cpu_seconds(measured.server),
        measured.server_calls(worker),
    )
    done.seconds = await many(jobs, concurrent, one)
    after = (
        measured.cpu_seconds(worker),
        measured.cpu_seconds(measured.server),
        measured.server_calls(worker),
    )
    done.worker_cpu, done.server_cpu, done.worker_calls = (
        (late - early) / jobs for early, late in zip(before, after, strict=True)
    )
    infos = [
        (
            await temporal.get_workflow_handle(job_id).describe()
        ).raw_description.workflow_execution_info
        for job_id in ids[:20]
    ]
    done.events = median(info.history_length for info in infos)
    done.history_bytes = mean(info.history_size_bytes for info in infos)
    return done


async def seen_jobs(kind: Kind, concurrent: int, jobs: int) -> Round:
    """Run whole jobs, and note for each how long its first signal took until a query saw it."""
    done = Round(kind.name, concurrent, jobs)

    async def one(_: int) -> None:
        job_id = JobClient.new_job_id()
        await kind.create(job_id)
        done.visible.append(await time_until_visible(kind, job_id))
        await kind.report(job_id, 1)
        await kind.ended(job_id)

    done.seconds = await many(jobs, concurrent, one)
    return done


async def created_only(kind: Kind, concurrent: int, jobs: int) -> Round:
    """Time `create` alone: nothing else is going on. The jobs end afterwards."""
    done = Round(kind.name, concurrent, jobs)
    ids = [JobClient.new_job_id() for _ in range(jobs)]

    async def one(number: int) -> None:
        begun = time.perf_counter()
        await kind.create(ids[number])
        done.create.append(_since(begun))

    async def end(number: int) -> None:
        for update in (0, 1):
            await kind.report(ids[number], update)
        await kind.ended(ids[number])

    done.seconds = await many(jobs, concurrent, one)
    if kind.worker == "worker":
        await many(jobs, 10, end)
    return done


async def time_until_visible(kind: Kind, job_id: str) -> float:
    """Milliseconds from sending the first signal until a query sees it."""
    begun = time.perf_counter()
    await kind.report(job_id, 0)
    while not await kind.is_visible(job_id):
        if time.perf_counter() - begun > VISIBLE_TIMEOUT:
            raise TimeoutError(
                f"The job {job_id} did not show its first signal within {VISIBLE_TIMEOUT:.0f} s."
            )
    return _since(begun)


def _since(begun: float) -> float:
    return (time.perf_counter() - begun) * 1000
