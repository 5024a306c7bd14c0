"""Many jobs of every kind from several clients, each of which logs the answers that it got."""

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
"""How long a client waits for one answer before it asks again."""
LIVE_TIMEOUT = 300.0

Answer = TypeVar("Answer")


@dataclass
class ClientLog:
    """The answers that clients got; the invariants are checked against them afterwards."""

    accepted: dict[str, str] = field(default_factory=dict)
    """The kind of each job that was accepted."""
    ended: dict[str, JobState] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    """The code of each refusal of a job."""
    repeated: int = 0
    """How often an answer did not come and was asked for again."""
    requests_refused: dict[str, int] = field(default_factory=dict)
    """How often `extend`, `suspend` and others were refused, by code."""
    wrong_answers: list[str] = field(default_factory=list)
    """A sentence for each answer that no client may get."""


class Client:
    """One user's program."""

    def __init__(
        self, jobs: JobClient, client_log: ClientLog, marks: str, seed: int, owns_link: bool
    ) -> None:
        self._jobs = jobs
        self._log = client_log
        self._marks = marks
        self._chance = random.Random(seed)
        self._lives: dict[str, Callable[[], Awaitable[None]]] = {
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
            self._lives["exclusive"] = lambda: self._short("exclusive", resources=[ONLY_LINK])

    async def live_on(self, is_over: asyncio.Event, at_most: Callable[[], bool]) -> None:
        """One life after the other until all faults are over and there were enough."""
        while not (is_over.is_set() and at_most()):
            await self.one_of_each_kind(1)

    async def one_of_each_kind(self, count: int | None = None) -> None:
        """A few lives of random kinds, or one of each."""
        kinds = sorted(self._lives)
        for kind in kinds if count is None else self._chance.choices(kinds, k=count):
            async with asyncio.timeout(LIVE_TIMEOUT):
                await self._lives[kind]()

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
            await self._asked(lambda: self._jobs.cancel(job_id, "enough"))
            await self._ended(job_id, {JobState.SUCCESS})

    async def _extended(self) -> None:
        job_id = await self._created("extended", self._specification(1))
        if job_id:
            await self._requested(lambda: self._jobs.extend(job_id, SimpleDuration(hours=1)))
            job = await self._ended(job_id, {JobState.SUCCESS})
            allocation = job.specification.time_allocation
            if allocation is None or allocation.hours not in {
                1,
                2,
                3,
            }:  # an answer that was lost is asked for again
                self._log.wrong_answers.append(f"{job_id} was extended to {allocation}")

    async def _suspended(self) -> None:
        job_id = await self._created("suspended", self._specification(1))
        if job_id:
            await self._requested(lambda: self._jobs.suspend(job_id))
            await asyncio.sleep(self._chance.uniform(0, 1))
            await self._requested(lambda: self._jobs.unsuspend(job_id))
            # A suspend whose answer was lost may be carried out after the unsuspend.
            while not (
                job := await self._asked(lambda: self._jobs.retrieve(job_id))
            ).status.state.is_terminal:
                if job.status.state is JobState.SUSPENDED:
                    await self._requested(lambda: self._jobs.unsuspend(job_id))
                await asyncio.sleep(0.5)
            await self._ended(job_id, {JobState.SUCCESS})

    async def _rejected(self) -> None:
        wrong = self._specification(0, parameters={"seconds": {"type": "text", "value": "soon"}})
        await self._created("rejected", wrong)

    async def _too_expensive(self) -> None:
        dear = self._specification(0, product=PAID, timeAllocation={"hours": 500_000})
        await self._created("too expensive", dear)

    async def _batch(self) -> None:
        batch_id = self._jobs.new_job_id()
        members = [self._specification(0), self._specification(0, product=PAID)]
        try:
            jobs = await self._asked(lambda: self._jobs.create_many(members, batch_id, TIMEOUT))
        except JobRejected as refusal:
            self._log.refused[batch_id] = refusal.code
            self._log.wrong_answers.append(f"The batch {batch_id} was refused: {refusal}")
            return
        for job in jobs:
            self._log.accepted[job.id] = "batch"
        for job in jobs:
            await self._ended(job.id, {JobState.SUCCESS})

    async def _created(self, kind: str, specification: JobSpecification) -> str | None:
        """The id, or None for a rejection, which must have the code of the kind."""
        job_id = self._jobs.new_job_id()
        right = {
            "rejected": "VERIFICATION_FAILED",
            "too expensive": "INSUFFICIENT_FUNDS",
            "exclusive": "RESOURCE_IN_USE",
        }
        try:
            await self._asked(lambda: self._jobs.create(specification, job_id, TIMEOUT))
        except JobRejected as refusal:
            self._log.refused[job_id] = refusal.code
            if refusal.code != right.get(kind):
                self._log.wrong_answers.append(
                    f"{kind} {job_id} was refused with {refusal.code}: {refusal}"
                )
            return None
        self._log.accepted[job_id] = kind
        if kind in {"rejected", "too expensive"}:
            self._log.wrong_answers.append(f"{kind} {job_id} was accepted")
        return job_id

    async def _ended(self, job_id: str, right: set[JobState]) -> Job:
        job: Job = await self._asked(lambda: self._jobs.wait(job_id))
        self._log.ended[job_id] = job.status.state
        if job.status.state not in right:
            last = job.updates[-1].status if job.updates else ""
            self._log.wrong_answers.append(
                f"{self._log.accepted[job_id]} {job_id} ended as {job.status.state}: {last}"
            )
        return job

    async def _requested(self, action: Callable[[], Awaitable[None]]) -> None:
        """A request that may be refused, such as to a job that has ended meanwhile."""
        try:
            await self._asked(action)
        except JobClosed:
            self._count("JobClosed")
        except RequestRefused as refusal:
            self._count(refusal.code)

    def _count(self, code: str) -> None:
        self._log.requests_refused[code] = self._log.requests_refused.get(code, 0) + 1

    async def _asked(self, action: Callable[[], Awaitable[Answer]]) -> Answer:
        """Ask again for as long as there is no answer."""
        while True:
            try:
                return await action()
            except Unreachable:
                self._log.repeated += 1
                await asyncio.sleep(self._chance.uniform(0.1, 0.5))


async def clients(address: str, client_log: ClientLog, count: int, seed: int) -> list[Client]:
    """So many clients, of two users."""
    made = []
    for number in range(count):
        jobs = await JobClient.connect(Actor(username=("alice", "bob")[number % 2]), address)
        made.append(
            Client(
                jobs, client_log, "/examples/marks.txt", seed + number, owns_link=number % 2 == 0
            )
        )
    return made
