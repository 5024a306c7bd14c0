"""Create jobs of every kind from several clients, which record each answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from client import Actor, JobClient, JobClosed, JobRejected, RequestRefused, Unreachable
from tests.builders import PAID, file, integer, specification
from ucloud_orchestrator.models import Job, JobSpecification, JobState, SimpleDuration

ONLY_LINK = {"type": "ingress", "id": "only-one"}
TIMEOUT = timedelta(seconds=20)
"""How long a client waits for an answer before it repeats the call."""
JOB_TIMEOUT = 300.0

Answer = TypeVar("Answer")


@dataclass
class ClientRecords:
    """The answers to clients, for the comparison with store, provider and processes."""

    accepted: dict[str, str] = field(default_factory=dict)
    """The kind of each job that was accepted."""
    ended: dict[str, JobState] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    """The code of each rejection of a job."""
    repeated: int = 0
    """How often a call got no answer and was repeated."""
    requests_rejected: dict[str, int] = field(default_factory=dict)
    """How often `extend`, `suspend` and others were rejected, by code."""
    contradictions: list[str] = field(default_factory=list)
    """Answers that no client may ever get."""


class Client:
    """One user's program."""

    def __init__(
        self, jobs: JobClient, records: ClientRecords, marks: str, seed: int, owns_link: bool
    ) -> None:
        self._jobs = jobs
        self._records = records
        self._marks = marks
        self._chance = random.Random(seed)
        self._kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "short": self._short,
            "paid": lambda: self._short("paid", product=PAID),
            "failing": lambda: self._short("failing", code=3),
            "replicas": lambda: self._short("replicas", replicas=3),
            "cancelled": self._cancelled,
            "extended": self._extended,
            "suspended": self._suspended,
            "rejected": self._rejected,
            "too expensive": self._too_expensive,
            "batch": self._batch,
        }
        if owns_link:
            self._kinds["exclusive"] = lambda: self._short("exclusive", resources=[ONLY_LINK])

    async def create_jobs(self, is_over: asyncio.Event, is_enough: Callable[[], bool]) -> None:
        """Complete one job after the other until the faults are over and there are enough."""
        while not (is_over.is_set() and is_enough()):
            await self.complete_jobs(1)

    async def complete_jobs(self, count: int | None = None) -> None:
        """Complete so many jobs of random kinds, or one of each kind."""
        kinds = sorted(self._kinds)
        for kind in kinds if count is None else self._chance.choices(kinds, k=count):
            async with asyncio.timeout(JOB_TIMEOUT):
                await self._kinds[kind]()

    def _specification(self, seconds: float, code: int = 0, **changes: Any) -> JobSpecification:
        parameters = {
            "file": file(self._marks, readOnly=False),
            "seconds": {"type": "floating_point", "value": seconds},
            "code": integer(code),
        }
        common = {
            "allowDuplicateJob": True,
            "timeAllocation": {"hours": 1},
            "parameters": parameters,
        }
        return specification("mark", **common | changes)

    async def _short(self, kind: str = "short", **changes: Any) -> None:
        job_id = await self._created(
            kind, self._specification(self._chance.uniform(0, 0.5), **changes)
        )
        if job_id:
            await self._ended(job_id, {JobState.SUCCESS})

    async def _cancelled(self) -> None:
        job_id = await self._created("cancelled", self._specification(600))
        if job_id:
            await asyncio.sleep(self._chance.uniform(0, 2))
            await self._retried(lambda: self._jobs.cancel(job_id, "enough"))
            await self._ended(job_id, {JobState.SUCCESS})

    async def _extended(self) -> None:
        job_id = await self._created("extended", self._specification(1))
        if job_id:
            await self._requested(lambda: self._jobs.extend(job_id, SimpleDuration(hours=1)))
            job = await self._ended(job_id, {JobState.SUCCESS})
            allocation = job.specification.time_allocation
            if allocation is None or allocation.hours not in {1, 2, 3}:  # a call may be repeated
                self._records.contradictions.append(f"{job_id} was extended to {allocation}")

    async def _suspended(self) -> None:
        job_id = await self._created("suspended", self._specification(1))
        if job_id:
            await self._requested(lambda: self._jobs.suspend(job_id))
            await asyncio.sleep(self._chance.uniform(0, 1))
            await self._requested(lambda: self._jobs.unsuspend(job_id))
            # A suspend whose answer was lost may be carried out after the unsuspend.
            while not (
                job := await self._retried(lambda: self._jobs.retrieve(job_id))
            ).status.state.is_terminal:
                if job.status.state is JobState.SUSPENDED:
                    await self._requested(lambda: self._jobs.unsuspend(job_id))
                await asyncio.sleep(0.5)
            await self._ended(job_id, {JobState.SUCCESS})

    async def _rejected(self) -> None:
        wrong = self._specification(0, parameters={"seconds": {"type": "text", "value": "soon"}})
        await self._created("rejected", wrong)

    async def _too_expensive(self) -> None:
        expensive = self._specification(0, product=PAID, timeAllocation={"hours": 500_000})
        await self._created("too expensive", expensive)

    async def _batch(self) -> None:
        batch_id = self._jobs.new_job_id()
        members = [self._specification(0), self._specification(0, product=PAID)]
        try:
            jobs = await self._retried(lambda: self._jobs.create_many(members, batch_id, TIMEOUT))
        except JobRejected as rejection:
            self._records.rejected[batch_id] = rejection.code
            self._records.contradictions.append(f"The batch {batch_id} was rejected: {rejection}")
            return
        for job in jobs:
            self._records.accepted[job.id] = "batch"
        for job in jobs:
            await self._ended(job.id, {JobState.SUCCESS})

    async def _created(self, kind: str, specification: JobSpecification) -> str | None:
        """Return the id, or None for a rejection, whose code must be the one of the kind."""
        job_id = self._jobs.new_job_id()
        expected = {
            "rejected": "VERIFICATION_FAILED",
            "too expensive": "INSUFFICIENT_FUNDS",
            "exclusive": "RESOURCE_IN_USE",
        }
        try:
            await self._retried(lambda: self._jobs.create(specification, job_id, TIMEOUT))
        except JobRejected as rejection:
            self._records.rejected[job_id] = rejection.code
            if rejection.code != expected.get(kind):
                self._records.contradictions.append(
                    f"{kind} {job_id} was rejected with {rejection.code}: {rejection}"
                )
            return None
        self._records.accepted[job_id] = kind
        if kind in {"rejected", "too expensive"}:
            self._records.contradictions.append(f"{kind} {job_id} was accepted")
        return job_id

    async def _ended(self, job_id: str, expected: set[JobState]) -> Job:
        job: Job = await self._retried(lambda: self._jobs.wait(job_id))
        self._records.ended[job_id] = job.status.state
        if job.status.state not in expected:
            last = job.updates[-1].status if job.updates else ""
            self._records.contradictions.append(
                f"{self._records.accepted[job_id]} {job_id} ended as {job.status.state}: {last}"
            )
        return job

    async def _requested(self, action: Callable[[], Awaitable[None]]) -> None:
        """Send a request that may be rejected, as one to a job that has ended."""
        try:
            await self._retried(action)
        except JobClosed:
            self._count("JobClosed")
        except RequestRefused as rejection:
            self._count(rejection.code)

    def _count(self, code: str) -> None:
        self._records.requests_rejected[code] = self._records.requests_rejected.get(code, 0) + 1

    async def _retried(self, action: Callable[[], Awaitable[Answer]]) -> Answer:
        """Repeat the call for as long as it gets no answer."""
        while True:
            try:
                return await action()
            except Unreachable:
                self._records.repeated += 1
                await asyncio.sleep(self._chance.uniform(0.1, 0.5))


async def clients(address: str, records: ClientRecords, count: int, seed: int) -> list[Client]:
    """Return so many clients, of two users."""
    made = []
    for number in range(count):
        jobs = await JobClient.connect(Actor(username=("alice", "bob")[number % 2]), address)
        made.append(
            Client(jobs, records, "/examples/marks.txt", seed + number, owns_link=number % 2 == 0)
        )
    return made
