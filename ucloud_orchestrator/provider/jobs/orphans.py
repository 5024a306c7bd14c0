"""Stops the jobs here that no workflow owns any more, such as after a forced end together with a
restored backup.
"""

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
"""Seconds between two looks while a job is suspected."""
MINIMUM_AGE = 10.0
"""Seconds for which a job must have been seen here, and that pass at least before the suspicion of
it is acted on.
"""


class OpenJobs(Protocol):
    """Where it is known which jobs have an owner; `ProviderClient` is one."""

    def browse_open_jobs(self) -> AsyncIterator[str]:
        """The ids of the provider's jobs that have not ended; the list may be a little old."""

    async def is_open(self, job_id: str) -> bool:
        """Whether the job's workflow runs, as of now."""


class OrphanCollector:
    """Compares the live jobs of the ledger with the orchestrator's, at an interval and when it is
    called.

    A job is stopped only if Temporal has said in two looks in a row that its workflow is closed or
    unknown. A job's workflow is there before the job is, so that one which was just created is
    always found. Without an answer nothing is stopped, and the suspicions are dropped.
    """

    def __init__(
        self,
        ledger: JobDatabase,
        provider_id: str,
        interval: float,
        stopped: Callable[[], None],
        register: OpenJobs | None = None,
    ) -> None:
        self._ledger = ledger
        self._provider_id = provider_id
        self._interval = interval
        self._stopped = stopped
        self._register = register
        self._called = asyncio.Event()
        self._seen: dict[str, float] = {}
        self._suspected: set[str] = set()

    def look(self) -> None:
        """Compare soon; the orchestrator has just made its own check."""
        self._called.set()

    async def run(self) -> None:
        """Compare again and again until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RECHECK_INTERVAL if self._suspected else self._interval):
                    await self._called.wait()
            self._called.clear()
            try:
                await self.compare(time.monotonic())
            except Exception as error:
                self._suspected.clear()
                log.warning(
                    "It cannot be found out which jobs have an owner, so none is stopped: %s", error
                )

    async def compare(self, now: float) -> None:
        """One look; `now` is in seconds of a clock that never goes back.

        Raises what the register raises.
        """
        live = [entry.job.id for entry in await self._ledger.live() if not entry.stop_requested]
        self._seen = {job_id: self._seen.get(job_id, now) for job_id in live}
        if not live:
            self._suspected.clear()
            return
        unowned = await self._unowned(live)
        for_good = [
            job_id
            for job_id in unowned
            if job_id in self._suspected and now - self._seen[job_id] >= MINIMUM_AGE
        ]
        self._suspected = unowned - set(for_good)
        if for_good:
            for job_id in sorted(for_good):
                with job_log_context(job_id):
                    log.warning("Stopping job %s: no workflow owns it.", job_id)
            await self._ledger.request_stop(for_good)
            self._stopped()

    async def _unowned(self, live: list[str]) -> set[str]:
        if self._register is None:
            self._register = await ProviderClient.connect(self._provider_id)
        owned = {job_id async for job_id in self._register.browse_open_jobs()}
        return {
            job_id
            for job_id in live
            if job_id not in owned and not await self._register.is_open(job_id)
        }
