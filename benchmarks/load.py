"""The loads: concurrent jobs, and their costs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from statistics import mean, median

from temporalio.client import Client

from benchmarks.kinds import Kind
from benchmarks.processes import Processes
from client import JobClient

VISIBLE_TIMEOUT = 60.0


@dataclass
class Round:
    """One load of one kind: milliseconds, bytes of history, seconds of CPU per job."""

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
        return self.jobs / self.seconds


async def run_concurrently(
    count: int, concurrent: int, one: Callable[[int], Awaitable[None]]
) -> float:
    """Call `one` with each number below `count`; returns the seconds of all calls."""
    numbers = iter(range(count))

    async def take_numbers() -> None:
        for number in numbers:
            await one(number)

    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrent, count)):
            group.create_task(take_numbers())
    return time.perf_counter() - start


async def measure_jobs(
    kind: Kind, temporal: Client, processes: Processes, concurrent: int, jobs: int
) -> Round:
    """Run complete jobs without queries."""
    done = Round(kind.name, concurrent, jobs)
    ids = [JobClient.new_job_id() for _ in range(jobs)]

    async def one(number: int) -> None:
        begun = time.perf_counter()
        await kind.create(ids[number])
        done.create.append(_since(begun))
        for update in (0, 1):
            await kind.report(ids[number], update)
        await kind.wait_until_ended(ids[number])

    worker = processes.worker if kind.worker == "worker" else processes.baseline
    before = (
        processes.cpu_seconds(worker),
        processes.cpu_seconds(processes.server),
        processes.server_calls(worker),
    )
    done.seconds = await run_concurrently(jobs, concurrent, one)
    after = (
        processes.cpu_seconds(worker),
        processes.cpu_seconds(processes.server),
        processes.server_calls(worker),
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


async def measure_signals(kind: Kind, concurrent: int, jobs: int) -> Round:
    """Run complete jobs, and time the first signal of each until a query shows it."""
    done = Round(kind.name, concurrent, jobs)

    async def one(_: int) -> None:
        job_id = JobClient.new_job_id()
        await kind.create(job_id)
        done.visible.append(await time_until_visible(kind, job_id))
        await kind.report(job_id, 1)
        await kind.wait_until_ended(job_id)

    done.seconds = await run_concurrently(jobs, concurrent, one)
    return done


async def measure_creates(kind: Kind, concurrent: int, jobs: int) -> Round:
    """Time `create` without other load. The jobs end afterwards."""
    done = Round(kind.name, concurrent, jobs)
    ids = [JobClient.new_job_id() for _ in range(jobs)]

    async def one(number: int) -> None:
        begun = time.perf_counter()
        await kind.create(ids[number])
        done.create.append(_since(begun))

    async def end(number: int) -> None:
        for update in (0, 1):
            await kind.report(ids[number], update)
        await kind.wait_until_ended(ids[number])

    done.seconds = await run_concurrently(jobs, concurrent, one)
    if kind.worker == "worker":
        await run_concurrently(jobs, 10, end)
    return done


async def time_until_visible(kind: Kind, job_id: str) -> float:
    """Return the milliseconds from sending the first signal until a query shows it."""
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
