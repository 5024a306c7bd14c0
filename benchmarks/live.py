"""Latency of signals, queries and lists, and memory, by the number of live jobs."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from temporalio.client import Client, WorkflowQueryFailedError
from temporalio.service import RPCError

from benchmarks.kinds import OurKind
from benchmarks.load import run_concurrently, time_until_visible
from benchmarks.processes import Processes
from client import Actor, JobClient

SAMPLES = 50
REACTION_TIMEOUT = 300.0


@dataclass
class LiveJobs:
    """The samples with this many live jobs: milliseconds, and bytes of the whole process."""

    live: int
    worker_memory: int
    server_memory: int
    signal: list[float] = field(default_factory=list)
    """Of a new job, from sending RUNNING until a query shows it."""
    query: list[float] = field(default_factory=list)
    """Of a job in the worker's cache."""
    old_query: list[float] = field(default_factory=list)
    """Of one of the oldest jobs, which may have left the cache."""
    listing: list[float] = field(default_factory=list)
    """Of a page of 50 jobs, as in `ucloud-orchestrator list`."""


@dataclass
class Restart:
    """Seconds from `kill -9` until the worker serves, and until the jobs of its cache answer."""

    live: int
    start: float
    all_react: float


class LiveLoad:
    def __init__(self, temporal: Client, processes: Processes) -> None:
        self._temporal = temporal
        self._processes = processes
        self._kind = OurKind(temporal)
        self._jobs = JobClient(temporal, Actor(username="alice"))
        self._ids: list[str] = []

    async def measure(self, count: int) -> LiveJobs:
        async def one(_: int) -> None:
            job_id = JobClient.new_job_id()
            await self._kind.create(job_id)
            await self._kind.report(job_id, 0)
            self._ids.append(job_id)

        if not self._ids:  # warm up
            await run_concurrently(20, 5, one)
            await self.end()
        await run_concurrently(count - len(self._ids), 50, one)
        memory = (
            self._processes.memory(self._processes.worker),
            self._processes.memory(self._processes.server),
        )
        samples = LiveJobs(count, *memory)
        for number in range(SAMPLES):
            new = JobClient.new_job_id()
            await self._kind.create(new)
            samples.signal.append(await time_until_visible(self._kind, new))
            samples.query.append(await self._timed_query(new))
            samples.old_query.append(await self._timed_query(self._ids[number % len(self._ids)]))
            begun = time.perf_counter()
            page = await self._jobs.browse(limit=50)
            samples.listing.append((time.perf_counter() - begun) * 1000)
            assert len(page) == min(50, count + number + 1) or count < 50
            await self._end(new)
        return samples

    async def restart(self) -> Restart:
        """Kill and start the worker, and wait until as many jobs as it caches have answered."""
        ids = self._ids[-1000:]
        worker = self._processes.worker
        assert worker.process is not None
        worker.process.kill()
        worker.process.wait()
        begun = time.perf_counter()
        worker.start()
        await asyncio.to_thread(worker.wait_until_ready)
        started = time.perf_counter() - begun

        async def answers(number: int) -> None:
            while not await self._answers(ids[number]):
                if time.perf_counter() - begun > REACTION_TIMEOUT:
                    raise TimeoutError(
                        f"The job {ids[number]} did not answer within {REACTION_TIMEOUT:.0f} s."
                    )

        await run_concurrently(len(ids), 50, answers)
        return Restart(len(ids), started, time.perf_counter() - begun)

    async def end(self) -> None:
        ids, self._ids = self._ids, []

        async def one(number: int) -> None:
            await self._end(ids[number])

        await run_concurrently(len(ids), 50, one)

    async def _end(self, job_id: str) -> None:
        await self._kind.report(job_id, 1)
        await self._kind.wait_until_ended(job_id)

    async def _answers(self, job_id: str) -> bool:
        try:
            return await self._kind.is_visible(job_id)
        except (RPCError, WorkflowQueryFailedError):
            return False

    async def _timed_query(self, job_id: str) -> float:
        begun = time.perf_counter()
        await self._kind.is_visible(job_id)
        return (time.perf_counter() - begun) * 1000
