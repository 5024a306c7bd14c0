"""Many live jobs: whether a signal, a query and a list stay as quick, and what each live job takes
of the memory.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from temporalio.client import Client, WorkflowQueryFailedError
from temporalio.service import RPCError

from benchmarks.kinds import OurKind
from benchmarks.load import many, time_until_visible
from benchmarks.processes import Measured
from client import Actor, JobClient

SAMPLES = 50
REACTION_TIMEOUT = 300.0


@dataclass
class LiveJobs:
    """What was seen with so many live jobs; times in milliseconds, memory in bytes, of the whole
    process.
    """

    live: int
    worker_memory: int
    server_memory: int
    signal: list[float] = field(default_factory=list)
    """Of a new job, from sending RUNNING until a query sees it."""
    query: list[float] = field(default_factory=list)
    """Of a job that the worker has in its cache."""
    old_query: list[float] = field(default_factory=list)
    """Of one of the oldest jobs, which the worker may have dropped from its cache."""
    listing: list[float] = field(default_factory=list)
    """A page of 50 jobs, as `ucloud-orchestrator list` does it."""


@dataclass
class Restart:
    """How long after `kill -9` and a new start all live jobs of the cache's size answered again, in
    seconds.
    """

    live: int
    start: float
    all_react: float


class LiveLoad:
    """Jobs that run, until `end`."""

    def __init__(self, temporal: Client, measured: Measured) -> None:
        self._temporal = temporal
        self._measured = measured
        self._kind = OurKind(temporal)
        self._jobs = JobClient(temporal, Actor(username="alice"))
        self._ids: list[str] = []

    async def reach(self, count: int) -> LiveJobs:
        """Start jobs until so many are live, and look at them."""

        async def one(_: int) -> None:
            job_id = JobClient.new_job_id()
            await self._kind.create(job_id)
            await self._kind.report(job_id, 0)
            self._ids.append(job_id)

        if not self._ids:  # what the first job of all costs is not of interest
            await many(20, 5, one)
            await self.end()
        await many(count - len(self._ids), 50, one)
        memory = (
            self._measured.memory(self._measured.worker),
            self._measured.memory(self._measured.server),
        )
        seen = LiveJobs(count, *memory)
        for number in range(SAMPLES):
            new = JobClient.new_job_id()
            await self._kind.create(new)
            seen.signal.append(await time_until_visible(self._kind, new))
            seen.query.append(await self._timed_query(new))
            seen.old_query.append(await self._timed_query(self._ids[number % len(self._ids)]))
            begun = time.perf_counter()
            page = await self._jobs.browse(limit=50)
            seen.listing.append((time.perf_counter() - begun) * 1000)
            assert len(page) == min(50, count + number + 1) or count < 50
            await self._end(new)
        return seen

    async def restart(self) -> Restart:
        """Kill the worker, start it again, and wait until each of as many jobs as it caches has
        answered.
        """
        ids = self._ids[-1000:]
        worker = self._measured.worker
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

        await many(len(ids), 50, answers)
        return Restart(len(ids), started, time.perf_counter() - begun)

    async def end(self) -> None:
        """End all jobs."""
        ids, self._ids = self._ids, []

        async def one(number: int) -> None:
            await self._end(ids[number])

        await many(len(ids), 50, one)

    async def _end(self, job_id: str) -> None:
        await self._kind.report(job_id, 1)
        await self._kind.ended(job_id)

    async def _answers(self, job_id: str) -> bool:
        try:
            return await self._kind.is_visible(job_id)
        except (RPCError, WorkflowQueryFailedError):
            return False

    async def _timed_query(self, job_id: str) -> float:
        begun = time.perf_counter()
        await self._kind.is_visible(job_id)
        return (time.perf_counter() - begun) * 1000
