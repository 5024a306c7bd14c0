"""Tells the orchestrator what has happened: in order for each job, until it is taken, and never in a job's way."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Protocol

from client import JobClosed, ProviderClient, RequestRefused
from models.endings import NO_CREDITS
from models.job import JobUpdate
from models.protocol import Charge, ChargeAnswer
from provider.figures import Figures
from provider.ledger import Ledger
from service.logs import about

log = logging.getLogger(__name__)

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 15.0
"""Seconds; the pauses between attempts double up to the longest."""


class Reports(Protocol):
    """Where reports go; `ProviderClient` is one."""

    async def update(self, job_id: str, updates: Sequence[JobUpdate]) -> None:
        """Take the updates of one job. Raises `JobClosed` if nobody wants them any more."""

    async def charge(self, job_id: str, charges: Sequence[Charge]) -> ChargeAnswer:
        """Take the charges of one job. Raises `JobClosed` or `RequestRefused` if they cannot be counted any more."""


class Reporter:
    """Sends what the ledger holds. The connection is made when there is something to say."""

    def __init__(
        self,
        ledger: Ledger,
        provider_id: str,
        waiting: asyncio.Event,
        figures: Figures,
        reports: Reports | None = None,
    ) -> None:
        self._ledger = ledger
        self._provider_id = provider_id
        self._waiting = waiting
        self._figures = figures
        self._reports = reports

    async def run(self) -> None:
        """Send until cancelled."""
        pause = FIRST_PAUSE
        while True:
            self._waiting.clear()
            try:
                await self._send_all()
            except Exception as error:
                self._figures.report_failed()
                log.warning("Reports wait for %.1f s, because they were not taken: %s", pause, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            pause = FIRST_PAUSE
            await self._waiting.wait()

    async def _send_all(self) -> None:
        pending, due = await self._ledger.pending_reports(), await self._ledger.due_charges()
        if not pending and not due:
            return
        if self._reports is None:
            self._reports = await ProviderClient.connect(self._provider_id)
        failures = [
            error
            for error in await asyncio.gather(
                *(
                    self._send(self._reports, job_id, due.get(job_id, []), pending.get(job_id, []))
                    for job_id in pending.keys() | due.keys()
                ),
                return_exceptions=True,
            )
            if error is not None
        ]
        if failures:
            raise failures[0]

    async def _send(
        self,
        reports: Reports,
        job_id: str,
        charges: Sequence[tuple[int, Charge]],
        updates: Sequence[tuple[int, JobUpdate]],
    ) -> None:
        """The charges first: after a job's last report nothing is counted any more."""
        if charges:
            with about(job_id):
                await self._charge(reports, job_id, [charge for _, charge in charges])
            await self._ledger.forget_charges([number for number, _ in charges])
        if updates:
            with contextlib.suppress(JobClosed):  # nobody wants to hear it any more
                await reports.update(job_id, [update for _, update in updates])
            await self._ledger.forget_reports([number for number, _ in updates])

    async def _charge(self, reports: Reports, job_id: str, charges: Sequence[Charge]) -> None:
        try:
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
