"""The reconciler: brings the jobs of this provider in line with what its database wants.

A pass observes every live job by its executor, decides by the table of `decisions`, and performs
the decision. Each pass derives everything from the database and the executors, so a pass after a
crash is like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ucloud_orchestrator.models.job import Job, JobState, JobUpdate
from ucloud_orchestrator.models.product import ProductReference
from ucloud_orchestrator.process.logging import job_log_context
from ucloud_orchestrator.provider.errors import TransientExecutorError
from ucloud_orchestrator.provider.executors.base import Executor
from ucloud_orchestrator.provider.executors.local import LocalExecutor
from ucloud_orchestrator.provider.executors.slurm.executor import SlurmExecutor
from ucloud_orchestrator.provider.executors.slurm.queue import SlurmQueue
from ucloud_orchestrator.provider.files.drives import Drives
from ucloud_orchestrator.provider.jobs import completion
from ucloud_orchestrator.provider.jobs.database import JobDatabase
from ucloud_orchestrator.provider.jobs.decisions import (
    REQUEUED,
    RUNNING,
    Action,
    Decision,
    JobPhase,
    JobRecord,
    StartAttempts,
    decide,
)
from ucloud_orchestrator.provider.jobs.directories import JobDirectories
from ucloud_orchestrator.provider.jobs.metering import due_charge
from ucloud_orchestrator.provider.jobs.metrics import ProviderMetrics
from ucloud_orchestrator.provider.jobs.preparation import JobPreparation
from ucloud_orchestrator.provider.jobs.tasks import JobTasks
from ucloud_orchestrator.provider.network.networks import Networks
from ucloud_orchestrator.provider.sandbox.exec import ExecTarget
from ucloud_orchestrator.provider.settings import HOME_DRIVE, ProviderSettings

log = logging.getLogger(__name__)

POLL_INTERVAL = 0.2
"""Seconds between two passes; changes that executors and requests report start one at once."""
ANSWER_TIMEOUT = 1.0
"""Seconds that the answer to `create` may wait for the start of the job, to report RUNNING."""
FAILURE_BACKOFF = 1.0
"""Seconds until a job is reconciled again after an error."""


@dataclass
class JobEntry:
    """A live job, and what this process remembers of it."""

    record: JobRecord
    attempts: StartAttempts = field(default_factory=StartAttempts)
    is_running_in_answer: bool = False
    """Whether the answer to `create` reports RUNNING."""
    waiting_text: str | None = None
    retry_at: float = 0.0
    logged: set[str] = field(default_factory=set)

    @property
    def job(self) -> Job:
        return self.record.job

    def failed(self, error: Exception) -> None:
        """Back off after an error that a retry may mend; each error is logged once."""
        self.retry_at = time.monotonic() + FAILURE_BACKOFF
        message = "The job %s could not be reconciled; the next pass retries it."
        _log_once(self.logged, message, self.job.id, error=error)


class Reconciler:
    def __init__(self, settings: ProviderSettings, database: JobDatabase) -> None:
        self._settings = settings
        self._database = database
        self.drives = Drives(settings.all_drives)
        self.directories = JobDirectories(settings)
        self.directories.make()
        self._local = LocalExecutor(self.directories.control)
        queue = SlurmQueue(settings.slurm_interval)
        self._by_product: dict[ProductReference, Executor] = {
            ProductReference(
                id=entry.product, category=entry.category, provider=settings.id
            ): SlurmExecutor(entry.slurm, self.directories.of, queue)
            for entry in settings.executors
            if entry.executor == "slurm"
        }
        self._executors: list[Executor] = [self._local, *self._by_product.values()]
        self.networks = Networks(settings)
        self._preparation = JobPreparation(settings, self.directories, self.drives, self.networks)
        self.metrics = ProviderMetrics()
        self._tasks = JobTasks()
        self.reconciled_at = time.monotonic()
        self._entries: dict[str, JobEntry] = {}
        self._changed = asyncio.Event()
        self._answers: dict[str, asyncio.Future[None]] = {}
        self.has_reports = asyncio.Event()
        """Set when the outbox has something new."""

    async def run(self) -> None:
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop may be closed already
                loop.call_soon_threadsafe(self._changed.set)

        for executor in self._executors:
            executor.on_change(wake)
        logged: set[str] = set()
        try:
            await self._remove_leftovers()
            while True:
                try:
                    with self.metrics.time_pass():
                        await self._reconcile_all()
                    self.reconciled_at = time.monotonic()
                except Exception as error:
                    _log_once(
                        logged, "A pass over the jobs failed; the next one retries.", error=error
                    )
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_INTERVAL):
                        await self._changed.wait()
                self._changed.clear()
        finally:
            await self._tasks.close()

    def wake(self) -> None:
        """Start the next pass now: the database has changed."""
        self._changed.set()

    async def wait_for_start(self, job_id: str) -> list[JobUpdate]:
        """Return the updates for the answer to `create`: RUNNING, if the job runs in time."""
        answer = self._answers.setdefault(job_id, asyncio.get_running_loop().create_future())
        self.wake()
        try:
            await asyncio.wait([answer], timeout=ANSWER_TIMEOUT)
        finally:
            if self._answers.get(job_id) is answer:
                del self._answers[job_id]
                answer.set_result(None)  # a repeated `create` waits for it too
        await answer  # at the timeout, the report may be on its way into the database
        record = await self._database.find(job_id)
        return [RUNNING] if record is not None and record.phase is JobPhase.RUNNING else []

    async def suspend(self, job_id: str) -> bool:
        """Suspend all replicas; False if the job does not run. Raises as `Executor.suspend`."""
        job = await self.running_job(job_id)
        if job is None:
            return False
        await self.executor_of(job).suspend(job)
        await self._report(job_id, JobState.SUSPENDED, "Your job is suspended.")
        return True

    async def unsuspend(self, job_id: str) -> bool:
        """Resume all replicas; False if the job does not run. Raises as `Executor.unsuspend`."""
        job = await self.running_job(job_id)
        if job is None:
            return False
        await self.executor_of(job).unsuspend(job)
        await self._report(job_id, JobState.RUNNING, "Your job is running again.")
        return True

    def executor_of(self, job: Job) -> Executor:
        return self._by_product.get(job.specification.product, self._local)

    async def exec_target(self, job_id: str, rank: int) -> ExecTarget | None:
        """Return how to run a program in a running replica; None without such a replica."""
        job = await self.running_job(job_id)
        return None if job is None else self.executor_of(job).exec_target(job, rank)

    async def running_job(self, job_id: str) -> Job | None:
        """Return the job while it runs; None before and after."""
        record = await self._database.find(job_id)
        return record.job if record is not None and record.is_running else None

    def job_at(self, host: str) -> str | None:
        """Return the id of the live job whose public link has that domain."""
        for entry in self._live_entries():
            domains = (entry.job.status.resolved_links or {}).values()
            if any(host == domain.lower() for domain in domains):
                return entry.job.id
        return None

    def counts(self) -> tuple[int, int]:
        entries = self._live_entries()
        running = sum(entry.record.phase is JobPhase.RUNNING for entry in entries)
        return running, len(entries) - running

    def _live_entries(self) -> list[JobEntry]:
        return [entry for entry in self._entries.values() if not entry.record.has_ended]

    async def _remove_leftovers(self) -> None:
        """Delete what a crash left of jobs that have ended."""
        try:
            live = {record.job.id for record in await self._database.live_records()}
            await self.networks.remove_leftovers(live)
            root = self.directories.root
            for directory in os.scandir(root) if root.is_dir() else ():
                if directory.name not in live:
                    self._tasks.delete(Path(directory.path))
        except Exception:
            log.exception(
                "What is left of jobs that have ended could not be deleted; the next start retries."
            )

    async def _reconcile_all(self) -> None:
        # Read first: the record of a job that a task changes meanwhile is not used.
        busy = self._tasks.busy_jobs()
        records = {record.job.id: record for record in await self._database.live_records()}
        for job_id in self._entries.keys() - records.keys():
            del self._entries[job_id]
        for executor in self._executors:
            jobs = (record.job for record in records.values())
            await executor.poll([job for job in jobs if self.executor_of(job) is executor])
        for job_id, record in records.items():
            entry = self._entries.setdefault(job_id, JobEntry(record))
            if job_id in busy or time.monotonic() < entry.retry_at:
                continue
            entry.record = record
            with job_log_context(job_id):
                try:
                    await self._reconcile(entry)
                except Exception as error:  # one job must not block the others
                    entry.failed(error)

    async def _reconcile(self, entry: JobEntry) -> None:
        decision = self._decide(entry)
        await self._perform(entry, decision)
        if decision.action is Action.REPORT_RUNNING:  # the job may have ended already
            await self._perform(entry, self._decide(entry))

    def _decide(self, entry: JobEntry) -> Decision:
        observation = self.executor_of(entry.job).observe(entry.job)
        return decide(entry.record, observation, _now(), entry.attempts)

    async def _perform(self, entry: JobEntry, decision: Decision) -> None:
        update = decision.update
        match decision.action:
            case Action.START:
                self._begin(entry, decision, self._start)
            case Action.STOP:
                self._begin(entry, decision, self._stop)
            case Action.END:
                self._begin(entry, decision, self._end)
            case Action.FAIL if update is not None:
                await self._fail(entry, update.status or "")
            case Action.REPORT_WAITING if update is not None:
                await self._report_waiting(entry, update.status or "")
            case Action.REPORT_RUNNING:
                await self._report_running(entry)
            case Action.REPORT_REQUEUED:
                await self._report_requeued(entry)
            case Action.CHARGE:
                interval = self._settings.charge_interval
                await self._charge(entry.job, decision.billable_until, interval)

    def _begin(
        self,
        entry: JobEntry,
        decision: Decision,
        function: Callable[[JobEntry, Decision], Awaitable[None]],
    ) -> None:
        """Call `function` in a task, if the decision is still the same when it gets a slot."""

        async def act() -> None:
            record = await self._database.find(entry.job.id)
            if record is None:
                return
            entry.record = record
            current = self._decide(entry)
            if current.action is decision.action:
                await function(entry, current)

        self._tasks.begin(entry.job.id, decision.action, act, entry.failed)

    async def _start(self, entry: JobEntry, _: Decision) -> None:
        job, executor = entry.job, self.executor_of(entry.job)
        try:
            replicas = await self._preparation.prepare(job, executor)
            await executor.start(job, self.directories.work(job.id), replicas)
        except TransientExecutorError as error:
            await self._report_waiting(entry, str(error))
            return
        except Exception as error:
            log.exception("The job %s could not be started.", job.id)
            await self._fail(entry, f"The job could not be started: {error}")
        else:
            entry.attempts = entry.attempts.next(_now())
            log.info("Started job %s with %d replicas.", job.id, len(replicas))
        self.wake()

    async def _stop(self, entry: JobEntry, _: Decision) -> None:
        await self.executor_of(entry.job).stop(entry.job)

    async def _end(self, entry: JobEntry, decision: Decision) -> None:
        """Keep the output, report the end, and delete the job's directory. Idempotent."""
        job, report = entry.job, decision.update
        assert report is not None
        if self.directories.of(job.id).is_dir():
            lost = await self._tasks.collect(partial(completion.collect, job, self.directories))
            text = report.status
            if lost:
                text = f"{text} Output that could not be kept: {', '.join(lost[:5])}."
            folder = f"/{HOME_DRIVE}/Jobs/{job.id}"
            report = report.model_copy(update={"output_folder": folder, "status": text})
        await self._charge(job, decision.billable_until, None)
        await self.networks.remove(job.id)
        self.executor_of(job).forget(job.id)
        # The answer to `create` may still be on its way: the end must not arrive before RUNNING.
        reports = [RUNNING, report] if entry.is_running_in_answer else [report]
        await self._database.mark_ended(job.id, reports)
        entry.record = replace(entry.record, phase=JobPhase.ENDED)
        self.metrics.count_end(report.state, entry.record.is_stop_requested)
        log.info("Job %s ended: %s %s", job.id, report.state, report.status)
        self.has_reports.set()
        self._tasks.delete(self.directories.of(job.id))

    async def _fail(self, entry: JobEntry, failure: str) -> None:
        await self._database.mark_failed(entry.job.id, failure)
        entry.record = replace(entry.record, phase=JobPhase.FAILED, failure=failure)
        self.wake()

    async def _report_waiting(self, entry: JobEntry, text: str) -> None:
        if text == entry.waiting_text:
            return
        entry.waiting_text = text
        await self._report(entry.job.id, None, text)

    async def _report_running(self, entry: JobEntry) -> None:
        job_id = entry.job.id
        self.metrics.count_start()
        if (answer := self._answers.pop(job_id, None)) is not None:
            entry.is_running_in_answer = True
            try:
                await self._database.mark_running(job_id, _now(), None)
            finally:
                answer.set_result(None)
        else:
            await self._database.mark_running(job_id, _now(), RUNNING)
            self.has_reports.set()
        entry.record = replace(entry.record, phase=JobPhase.RUNNING)

    async def _report_requeued(self, entry: JobEntry) -> None:
        entry.is_running_in_answer = False
        await self._database.mark_requeued(entry.job.id, _now(), REQUEUED)
        entry.record = replace(entry.record, phase=JobPhase.PENDING)
        self.has_reports.set()

    async def _charge(self, job: Job, until: int, interval: float | None) -> None:
        """Put the due charge into the outbox; without an interval, the rest of the job."""
        meter = await self._database.meter(job.id, until)
        if meter is None:
            return
        used, charged = meter
        milliseconds = None if interval is None else int(interval * 1000)
        charge = due_charge(job, used, charged, milliseconds)
        if charge is not None:
            await self._database.add_charge(job.id, charge)
            self.has_reports.set()

    async def _report(self, job_id: str, state: JobState | None, text: str) -> None:
        await self._database.add_report(job_id, JobUpdate(state=state, status=text))
        self.has_reports.set()


def _log_once(logged: set[str], message: str, *arguments: str, error: Exception) -> None:
    """Log an error with its traceback, unless it was logged before."""
    text = f"{type(error).__name__}: {error}"
    if text not in logged:
        logged.add(text)
        log.error(message, *arguments, exc_info=error)


def _now() -> int:
    return int(time.time() * 1000)
