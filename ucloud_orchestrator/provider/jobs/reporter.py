"""Tells the orchestrator what has happened: in order for each job, until it is taken, and never in
a job's way.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from client import JobClosed, ProviderClient, RequestRefused
from ucloud_orchestrator.models.backoff import Backoff
from ucloud_orchestrator.models.end_reason import NO_CREDITS
from ucloud_orchestrator.models.job import JobUpdate
from ucloud_orchestrator.models.provider_api import Charge, ChargeAnswer
from ucloud_orchestrator.process.logging import job_log_context
from ucloud_orchestrator.provider.jobs.database import JobDatabase
from ucloud_orchestrator.provider.jobs.metrics import ProviderMetrics

log = logging.getLogger(__name__)

INITIAL_BACKOFF = 0.5
MAX_BACKOFF = 15.0
"""Seconds between attempts."""
TIMEOUT = 20.0
"""Seconds that the orchestrator may take over one job's charges, and over its updates; then they
are sent again.
"""
MAX_CONCURRENT_REPORTS = 100
"""Jobs whose reports may be under way at the same time."""


class Reports(Protocol):
    """Where reports go; `ProviderClient` is one."""

    async def update(self, job_id: str, updates: Sequence[JobUpdate]) -> None:
        """Take the updates of one job. Raises `JobClosed` if nobody wants them any more."""

    async def charge(self, job_id: str, charges: Sequence[Charge]) -> ChargeAnswer:
        """Take the charges of one job.

        Raises `JobClosed` or `RequestRefused` if they cannot be counted any more.
        """


@dataclass
class _Delivery:
    """What is under way for a job, and until when it pauses after attempts that were in vain."""

    sending: asyncio.Task[None] | None = None
    backoff: Backoff = field(default_factory=lambda: Backoff(INITIAL_BACKOFF, MAX_BACKOFF))
    until: float = 0.0
    complaint: str | None = None


class Reporter:
    """Sends what the ledger holds, each job's in order and apart from those of all others.

    The connection is made when there is something to say.
    """

    def __init__(
        self,
        ledger: JobDatabase,
        provider_id: str,
        waiting: asyncio.Event,
        figures: ProviderMetrics,
        reports: Reports | None = None,
    ) -> None:
        self._ledger = ledger
        self._provider_id = provider_id
        self._waiting = waiting
        self._figures = figures
        self._reports = reports
        self._lines: dict[str, _Delivery] = {}
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_REPORTS)

    async def run(self) -> None:
        """Send until cancelled."""
        backoff = Backoff(INITIAL_BACKOFF, MAX_BACKOFF)
        try:
            while True:
                self._waiting.clear()
                try:
                    await self._send_all()
                except Exception as error:
                    self._figures.report_failed()
                    delay = backoff.next_delay()
                    log.warning(
                        "Reports wait for %.1f s, because they cannot be sent: %s", delay, error
                    )
                    await asyncio.sleep(delay)
                    continue
                backoff.reset()
                await self._wait()
        finally:
            sending = [line.sending for line in self._lines.values() if line.sending is not None]
            for task in sending:
                task.cancel()
            await asyncio.gather(*sending, return_exceptions=True)

    async def _wait(self) -> None:
        """Until there is news, or the pause of a job is over."""
        pauses = [line.until for line in self._lines.values() if line.sending is None]
        timeout = max(0.0, min(pauses) - time.monotonic()) if pauses else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._waiting.wait()

    async def _send_all(self) -> None:
        """Begin to send the reports of each job of which none are under way, and that does not
        pause.
        """
        jobs = await self._ledger.unanswered_jobs()
        for job_id in [
            job_id
            for job_id, line in self._lines.items()
            if line.sending is None and job_id not in jobs
        ]:
            del self._lines[job_id]
        if not jobs:
            return
        if self._reports is None:
            self._reports = await ProviderClient.connect(self._provider_id)
        for job_id in jobs:
            line = self._lines.setdefault(job_id, _Delivery())
            if line.sending is None and line.until <= time.monotonic():
                line.sending = asyncio.create_task(self._attempt(self._reports, job_id, line))

    async def _attempt(self, reports: Reports, job_id: str, line: _Delivery) -> None:
        with job_log_context(job_id):
            try:
                async with self._slots:
                    await self._send(reports, job_id)
            except Exception as error:
                self._figures.report_failed()
                text = str(error) or f"no answer within {TIMEOUT:.0f} s"
                if text != line.complaint:
                    log.warning(
                        "Reports of job %s wait, because they were not taken: %s", job_id, text
                    )
                line.complaint, line.until = text, time.monotonic() + line.backoff.next_delay()
            else:
                line.complaint, line.until = None, 0.0
                line.backoff.reset()
            finally:
                line.sending = None
                self._waiting.set()

    async def _send(self, reports: Reports, job_id: str) -> None:
        """The charges first: after a job's last report nothing is counted any more."""
        updates = await self._ledger.pending_reports(job_id)
        # Read after the updates: the last of them is noted after the last charge.
        if charges := await self._ledger.due_charges(job_id):
            await self._charge(reports, job_id, [charge for _, charge in charges])
            await self._ledger.forget_charges([number for number, _ in charges])
        if updates:
            with contextlib.suppress(JobClosed):  # nobody wants to hear it any more
                async with asyncio.timeout(TIMEOUT):
                    await reports.update(job_id, [update for _, update in updates])
            await self._ledger.forget_reports(job_id, [number for number, _ in updates])

    async def _charge(self, reports: Reports, job_id: str, charges: Sequence[Charge]) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                answer = await reports.charge(job_id, charges)
        except (JobClosed, RequestRefused) as error:
            log.error("Charges of job %s were not counted: %s", job_id, error)
            return
        if answer.insufficient_funds:
            log.warning("Job %s is stopped: there are no more credits.", job_id)
            await self._ledger.request_stop([job_id])
            text = f"Your job has been terminated {NO_CREDITS}."
            await self._ledger.report(job_id, JobUpdate(status=text))
            self._waiting.set()
