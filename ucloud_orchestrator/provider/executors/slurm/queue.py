"""Slurm's queue: one poll for all jobs of all products, in the background."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from ucloud_orchestrator.provider.errors import TransientExecutorError
from ucloud_orchestrator.provider.executors.slurm import commands
from ucloud_orchestrator.provider.executors.slurm.commands import SlurmJob

MIN_POLL_INTERVAL = 1.0
"""Seconds between two polls, however urgent."""

log = logging.getLogger(__name__)


class SlurmQueue:
    """The jobs of the last `squeue`, by Slurm's job id.

    Without an answer the jobs stay: a lost answer is unknown, not absence. `polled_at` is when the
    last answered poll began (`time.monotonic`; 0 before the first). `complaint` is the error of the
    last poll, if it had no answer.
    """

    def __init__(self, interval: float) -> None:
        self.jobs: dict[int, SlurmJob] = {}
        self.polled_at = 0.0
        self.complaint: str | None = None
        self._interval = interval
        self._poll_began = 0.0
        self._is_urgent = False
        self._changed: Callable[[], None] = lambda: None
        self._poll_task: asyncio.Task[None] | None = None

    def on_change(self, callback: Callable[[], None]) -> None:
        self._changed = callback

    def refresh(self, at_once: bool = False) -> None:
        """Poll in the background if the interval is over; `at_once` uses the shortest interval."""
        self._is_urgent = self._is_urgent or at_once
        interval = min(MIN_POLL_INTERVAL, self._interval) if self._is_urgent else self._interval
        is_due = time.monotonic() - self._poll_began > interval
        if is_due and (self._poll_task is None or self._poll_task.done()):
            self._is_urgent = False
            self._poll_task = asyncio.create_task(self._poll())

    async def poll(self) -> None:
        """Poll now. Raises `TransientExecutorError` without an answer."""
        while (
            self._poll_task is not None and not self._poll_task.done()
        ):  # it may have begun too early for the caller
            await asyncio.wait([self._poll_task])
        self._poll_task = asyncio.create_task(self._poll())
        await asyncio.shield(self._poll_task)
        if self.complaint is not None:
            raise TransientExecutorError(self.complaint)

    def named(self, name: str) -> list[SlurmJob]:
        """Return the jobs of that name: live ones first, then by age."""
        found = [job for job in self.jobs.values() if job.name == name]
        return sorted(found, key=lambda job: (job.is_over, job.id))

    async def _poll(self) -> None:
        began = self._poll_began = time.monotonic()
        try:
            jobs = await commands.queue()
        except TransientExecutorError as error:
            if self.complaint is None:
                log.warning("Slurm's queue cannot be seen: %s", error)
            self.complaint = str(error)
        else:
            self.jobs, self.polled_at, self.complaint = (
                {job.id: job for job in jobs},
                began,
                None,
            )
        self._changed()
