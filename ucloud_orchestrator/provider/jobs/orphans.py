"""Stops the jobs here that have no open workflow, such as after a restored backup."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from client import ProviderClient
from ucloud_orchestrator.process.logging import job_log_context
from ucloud_orchestrator.provider.jobs.database import JobDatabase

log = logging.getLogger(__name__)

RECHECK_INTERVAL = 5.0
"""Seconds between two checks while a job is suspected."""
MINIMUM_AGE = 10.0
"""Seconds for which a job must have been seen here before it is stopped."""


class OpenJobs(Protocol):
    """The orchestrator's open jobs; `ProviderClient` implements it."""

    def browse_open_jobs(self) -> AsyncIterator[str]:
        """Iterate over the ids of the provider's open jobs; the list may be stale."""

    async def is_open(self, job_id: str) -> bool:
        """Whether the job's workflow runs now."""


class OrphanCollector:
    """Compares the live jobs here with the orchestrator's, at an interval and on request.

    A job is stopped only if two checks in a row find that its workflow is closed or unknown. The
    workflow starts before the job is created here, so a new job is never an orphan. Without an
    answer no job is stopped, and no suspicion stays.
    """

    def __init__(
        self,
        database: JobDatabase,
        provider_id: str,
        interval: float,
        on_stop: Callable[[], None],
        open_jobs: OpenJobs | None = None,
    ) -> None:
        self._database = database
        self._provider_id = provider_id
        self._interval = interval
        self._on_stop = on_stop
        self._open_jobs = open_jobs
        self._requested = asyncio.Event()
        self._seen: dict[str, float] = {}
        self._suspected: set[str] = set()

    def request_check(self) -> None:
        """Check now: the orchestrator has just made its own check."""
        self._requested.set()

    async def run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RECHECK_INTERVAL if self._suspected else self._interval):
                    await self._requested.wait()
            self._requested.clear()
            try:
                await self.check(time.monotonic())
            except Exception as error:
                self._suspected.clear()
                log.warning("Open jobs cannot be listed, so no orphan is stopped: %s", error)

    async def check(self, now: float) -> None:
        """Check once; `now` is in seconds of a monotonic clock. Raises the errors of `OpenJobs`."""
        live = [
            record.job.id
            for record in await self._database.live_records()
            if not record.is_stop_requested
        ]
        self._seen = {job_id: self._seen.get(job_id, now) for job_id in live}
        if not live:
            self._suspected.clear()
            return
        orphans = await self._find_orphans(live)
        confirmed = [
            job_id
            for job_id in orphans
            if job_id in self._suspected and now - self._seen[job_id] >= MINIMUM_AGE
        ]
        self._suspected = orphans - set(confirmed)
        if confirmed:
            for job_id in sorted(confirmed):
                with job_log_context(job_id):
                    log.warning("Stopping job %s: no workflow owns it.", job_id)
            await self._database.request_stop(confirmed)
            self._on_stop()

    async def _find_orphans(self, live: list[str]) -> set[str]:
        if self._open_jobs is None:
            self._open_jobs = await ProviderClient.connect(self._provider_id)
        open_ids = {job_id async for job_id in self._open_jobs.browse_open_jobs()}
        return {
            job_id
            for job_id in live
            if job_id not in open_ids and not await self._open_jobs.is_open(job_id)
        }
