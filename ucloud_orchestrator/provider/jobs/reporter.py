"""Delivers reports and charges to the orchestrator, in order for each job."""

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
"""Seconds for the delivery of one job's charges, and of its updates; then it is repeated."""
MAX_CONCURRENT_REPORTS = 100
"""Concurrent deliveries, each of one job."""


class Reports(Protocol):
    """The receiver of reports; `ProviderClient` implements it."""

    async def update(self, job_id: str, updates: Sequence[JobUpdate]) -> None:
        """Deliver the updates of one job. Raises `JobClosed` if the job has ended."""

    async def charge(self, job_id: str, charges: Sequence[Charge]) -> ChargeAnswer:
        """Deliver the charges of one job.

        Raises `JobClosed` or `RequestRefused` if they cannot be counted any more.
        """


@dataclass
class _Delivery:
    """The delivery of a job's reports, and its backoff after failed attempts."""

    sending: asyncio.Task[None] | None = None
    backoff: Backoff = field(default_factory=lambda: Backoff(INITIAL_BACKOFF, MAX_BACKOFF))
    until: float = 0.0
    complaint: str | None = None


class Reporter:
    """Delivers the outbox: each job's reports in order, and independently of other jobs.

    The connection is made for the first report.
    """

    def __init__(
        self,
        database: JobDatabase,
        provider_id: str,
        has_reports: asyncio.Event,
        metrics: ProviderMetrics,
        reports: Reports | None = None,
    ) -> None:
        self._database = database
        self._provider_id = provider_id
        self._has_reports = has_reports
        self._metrics = metrics
        self._reports = reports
        self._deliveries: dict[str, _Delivery] = {}
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_REPORTS)

    async def run(self) -> None:
        backoff = Backoff(INITIAL_BACKOFF, MAX_BACKOFF)
        try:
            while True:
                self._has_reports.clear()
                try:
                    await self._send_all()
                except Exception as error:
                    self._metrics.count_report_failure()
                    delay = backoff.next_delay()
                    log.warning(
                        "Reports wait for %.1f s, because they cannot be sent: %s", delay, error
                    )
                    await asyncio.sleep(delay)
                    continue
                backoff.reset()
                await self._wait()
        finally:
            sending = [
                delivery.sending
                for delivery in self._deliveries.values()
                if delivery.sending is not None
            ]
            for task in sending:
                task.cancel()
            await asyncio.gather(*sending, return_exceptions=True)

    async def _wait(self) -> None:
        """Wait for a new report, or for the end of a job's backoff."""
        ends = [
            delivery.until for delivery in self._deliveries.values() if delivery.sending is None
        ]
        timeout = max(0.0, min(ends) - time.monotonic()) if ends else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._has_reports.wait()

    async def _send_all(self) -> None:
        """Start a delivery for each job that has none and does not back off."""
        jobs = await self._database.undelivered_jobs()
        for job_id in [
            job_id
            for job_id, delivery in self._deliveries.items()
            if delivery.sending is None and job_id not in jobs
        ]:
            del self._deliveries[job_id]
        if not jobs:
            return
        if self._reports is None:
            self._reports = await ProviderClient.connect(self._provider_id)
        for job_id in jobs:
            delivery = self._deliveries.setdefault(job_id, _Delivery())
            if delivery.sending is None and delivery.until <= time.monotonic():
                delivery.sending = asyncio.create_task(
                    self._attempt(self._reports, job_id, delivery)
                )

    async def _attempt(self, reports: Reports, job_id: str, delivery: _Delivery) -> None:
        with job_log_context(job_id):
            try:
                async with self._slots:
                    await self._send(reports, job_id)
            except Exception as error:
                self._metrics.count_report_failure()
                text = str(error) or f"no answer within {TIMEOUT:.0f} s"
                if text != delivery.complaint:
                    log.warning(
                        "Reports of job %s wait, because they were not delivered: %s", job_id, text
                    )
                delivery.complaint, delivery.until = (
                    text,
                    time.monotonic() + delivery.backoff.next_delay(),
                )
            else:
                delivery.complaint, delivery.until = None, 0.0
                delivery.backoff.reset()
            finally:
                delivery.sending = None
                self._has_reports.set()

    async def _send(self, reports: Reports, job_id: str) -> None:
        """Deliver the charges first: after the final update the orchestrator counts none."""
        updates = await self._database.pending_reports(job_id)
        # Read after the updates: the final update is stored after the last charge.
        if charges := await self._database.due_charges(job_id):
            await self._charge(reports, job_id, [charge for _, charge in charges])
            await self._database.delete_charges([number for number, _ in charges])
        if updates:
            with contextlib.suppress(JobClosed):  # the job has ended
                async with asyncio.timeout(TIMEOUT):
                    await reports.update(job_id, [update for _, update in updates])
            await self._database.delete_reports(job_id, [number for number, _ in updates])

    async def _charge(self, reports: Reports, job_id: str, charges: Sequence[Charge]) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                answer = await reports.charge(job_id, charges)
        except (JobClosed, RequestRefused) as error:
            log.error("Charges of job %s were not counted: %s", job_id, error)
            return
        if answer.insufficient_funds:
            log.warning("Job %s is stopped: there are no more credits.", job_id)
            await self._database.request_stop([job_id])
            text = f"Your job has been terminated {NO_CREDITS}."
            await self._database.add_report(job_id, JobUpdate(status=text))
            self._has_reports.set()
