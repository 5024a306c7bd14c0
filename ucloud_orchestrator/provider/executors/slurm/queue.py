"""Slurm's queue as it was seen last: one look for all jobs of all products, never in the way of
anything else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from ucloud_orchestrator.provider.errors import TransientExecutorError
from ucloud_orchestrator.provider.executors.slurm import commands
from ucloud_orchestrator.provider.executors.slurm.commands import SlurmJob

MIN_POLL_INTERVAL = 1.0
"""Seconds between two looks, however urgent."""

log = logging.getLogger(__name__)


class SlurmQueue:
    """The jobs that `squeue` showed last, by their numbers.

    When Slurm does not answer, everything stays as it was seen: silence says nothing about a job.
    `looked_at` is when the last answered look began (`time.monotonic`; 0 before the first),
    `complaint` why the last one was not answered.
    """

    def __init__(self, interval: float) -> None:
        self.jobs: dict[int, SlurmJob] = {}
        self.looked_at = 0.0
        self.complaint: str | None = None
        self._interval = interval
        self._began = 0.0
        self._is_urgent = False
        self._news: Callable[[], None] = lambda: None
        self._looking: asyncio.Task[None] | None = None

    def tell(self, news: Callable[[], None]) -> None:
        """Call `news` after each look."""
        self._news = news

    def refresh(self, at_once: bool = False) -> None:
        """Look again, in the background, when the interval since the last look is over; `at_once`
        for the shortest.
        """
        self._is_urgent = self._is_urgent or at_once
        pause = min(MIN_POLL_INTERVAL, self._interval) if self._is_urgent else self._interval
        is_due = time.monotonic() - self._began > pause
        if is_due and (self._looking is None or self._looking.done()):
            self._is_urgent = False
            self._looking = asyncio.create_task(self._look())

    async def look(self) -> None:
        """Look now, and wait for the answer. Raises `TransientExecutorError` if there is none."""
        while (
            self._looking is not None and not self._looking.done()
        ):  # it may have begun too early for the caller
            await asyncio.wait([self._looking])
        self._looking = asyncio.create_task(self._look())
        await asyncio.shield(self._looking)
        if self.complaint is not None:
            raise TransientExecutorError(self.complaint)

    def named(self, name: str) -> list[SlurmJob]:
        """The jobs of that name, those that are not over first, then the oldest."""
        found = [job for job in self.jobs.values() if job.name == name]
        return sorted(found, key=lambda job: (job.is_over, job.number))

    async def _look(self) -> None:
        began = self._began = time.monotonic()
        try:
            jobs = await commands.queue()
        except TransientExecutorError as error:
            if self.complaint is None:
                log.warning("Slurm's queue cannot be seen: %s", error)
            self.complaint = str(error)
        else:
            self.jobs, self.looked_at, self.complaint = (
                {job.number: job for job in jobs},
                began,
                None,
            )
        self._news()
