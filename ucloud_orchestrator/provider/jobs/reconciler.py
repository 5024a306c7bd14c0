"""Brings what runs on this machine in line with what the ledger says should run, and notes what is
to be reported.

One loop looks at all live jobs. Each look derives everything from the ledger and the control
folders, so a look after a crash is no different from any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ucloud_orchestrator.models.job import Job, JobState, JobUpdate
from ucloud_orchestrator.models.product import ProductReference
from ucloud_orchestrator.process.logging import job_log_context
from ucloud_orchestrator.provider.errors import TransientExecutorError
from ucloud_orchestrator.provider.executors.base import Executor, JobObservation
from ucloud_orchestrator.provider.executors.local import LocalExecutor
from ucloud_orchestrator.provider.executors.replica import Phase
from ucloud_orchestrator.provider.executors.slurm.executor import SlurmExecutor
from ucloud_orchestrator.provider.executors.slurm.queue import SlurmQueue
from ucloud_orchestrator.provider.files.drives import Drives
from ucloud_orchestrator.provider.jobs import completion
from ucloud_orchestrator.provider.jobs.database import JobDatabase, JobRecord
from ucloud_orchestrator.provider.jobs.directories import JobFolders
from ucloud_orchestrator.provider.jobs.metering import due_charge
from ucloud_orchestrator.provider.jobs.metrics import ProviderMetrics
from ucloud_orchestrator.provider.jobs.preparation import JobPreparation
from ucloud_orchestrator.provider.jobs.tasks import JobTasks, TaskKind
from ucloud_orchestrator.provider.network.networks import Networks
from ucloud_orchestrator.provider.sandbox.exec import ExecTarget
from ucloud_orchestrator.provider.settings import HOME_DRIVE, ProviderSettings

log = logging.getLogger(__name__)

POLL_INTERVAL = 0.2
"""Seconds between two looks at all live jobs; PSI/J's news and requests bring the next look at
once.
"""
ANSWER_TIMEOUT = 1.0
"""Seconds that the answer to `create` may wait for the job's start, so that it can say so."""
FAILURE_BACKOFF = 1.0
"""Seconds until a job is looked at again of which a look has failed."""
START_ATTEMPTS = 3
START_BACKOFF = 1.0
"""How often a job is started, and the seconds in between, where a start leaves a replica that has
not begun.
"""
RUNNING = JobUpdate(state=JobState.RUNNING, status="Your job is now running.")


@dataclass
class JobEntry:
    """A live job, and what this process has done for it and said of it."""

    taken: JobRecord
    started: bool = False
    starts: int = 0
    start_not_before: float = 0.0
    failure: str | None = None
    has_ended: bool = False
    told_in_answer: bool = False
    waiting_text: str | None = None
    paused_until: float = 0.0
    complaints: set[str] = field(default_factory=set)

    @property
    def is_to_stop(self) -> bool:
        """Whether it shall end, however its replicas stand."""
        return self.taken.stop_requested or self.failure is not None

    def failed(self, error: Exception) -> None:
        """Something that will be repeated has failed; each complaint is logged once."""
        self.paused_until = time.monotonic() + FAILURE_BACKOFF
        _log_once(
            self.complaints,
            "A look at the job %s failed; the next one follows.",
            self.taken.job.id,
            error=error,
        )


class Runner:
    """Has jobs run by the executor of their product."""

    def __init__(self, settings: ProviderSettings, ledger: JobDatabase) -> None:
        self._settings = settings
        self._ledger = ledger
        self.drives = Drives(settings.all_drives)
        self.folders = JobFolders(settings)
        self.folders.make()
        self._local = LocalExecutor(self.folders.control)
        queue = SlurmQueue(settings.slurm_interval)
        self._by_product: dict[ProductReference, Executor] = {
            ProductReference(
                id=entry.product, category=entry.category, provider=settings.id
            ): SlurmExecutor(entry.slurm, self.folders.of, queue)
            for entry in settings.executors
            if entry.executor == "slurm"
        }
        self._executors: list[Executor] = [self._local, *self._by_product.values()]
        self.networks = Networks(settings)
        self._starts = JobPreparation(settings, self.folders, self.drives, self.networks)
        self.figures = ProviderMetrics()
        self._actions = JobTasks()
        self.looked_at = time.monotonic()
        self._live: dict[str, JobEntry] = {}
        self._news = asyncio.Event()
        self._answers: dict[str, asyncio.Future[None]] = {}
        self.reports_waiting = asyncio.Event()

    async def run(self) -> None:
        """Look again and again until cancelled."""
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop may be closed already
                loop.call_soon_threadsafe(self._news.set)

        for executor in self._executors:
            executor.tell(wake)
        complaints: set[str] = set()
        try:
            await self._remove_leftovers()
            while True:
                try:
                    with self.figures.look():
                        await self._reconcile_all()
                    self.looked_at = time.monotonic()
                except Exception as error:
                    _log_once(
                        complaints, "A look at the jobs failed; the next one follows.", error=error
                    )
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_INTERVAL):
                        await self._news.wait()
                self._news.clear()
        finally:
            await self._actions.close()

    def look(self) -> None:
        """Something has changed in the ledger."""
        self._news.set()

    async def wait_for_start(self, job_id: str) -> list[JobUpdate]:
        """What can be said of a job in the answer to its `create`: that it runs, if it does within
        a moment.
        """
        answer = self._answers.setdefault(job_id, asyncio.get_running_loop().create_future())
        self.look()
        try:
            await asyncio.wait([answer], timeout=ANSWER_TIMEOUT)
        finally:
            if self._answers.get(job_id) is answer:
                del self._answers[job_id]
                answer.set_result(None)  # for a repeat that waits too
        await (
            answer
        )  # it may have been taken for the news at the last moment, before they are noted
        taken = await self._ledger.find(job_id)
        return [RUNNING] if taken is not None and taken.running_reported and not taken.ended else []

    async def suspend(self, job_id: str) -> bool:
        """Hold all replicas; False if the job does not run. Raises as `Executor.suspend`."""
        job = await self.running_job(job_id)
        if job is None:
            return False
        await self.executor_of(job).suspend(job)
        await self._report(job_id, JobState.SUSPENDED, "Your job is suspended.")
        return True

    async def unsuspend(self, job_id: str) -> bool:
        """Let all replicas go on; False if the job does not run. Raises as `Executor.unsuspend`."""
        job = await self.running_job(job_id)
        if job is None:
            return False
        await self.executor_of(job).unsuspend(job)
        await self._report(job_id, JobState.RUNNING, "Your job is running again.")
        return True

    def executor_of(self, job: Job) -> Executor:
        """Who runs the replicas of this job."""
        return self._by_product.get(job.specification.product, self._local)

    async def exec_target(self, job_id: str, rank: int) -> ExecTarget | None:
        """How a program comes into a running replica; None if it does not run."""
        job = await self.running_job(job_id)
        return None if job is None else self.executor_of(job).exec_target(job, rank)

    async def running_job(self, job_id: str) -> Job | None:
        """The job, while it runs; None before and after."""
        taken = await self._ledger.find(job_id)
        if taken is None or taken.ended or taken.stop_requested or not taken.running_reported:
            return None
        return taken.job

    def job_at(self, host: str) -> str | None:
        """The id of the live job whose public link has that domain."""
        for job_id, live in self._still_live():
            domains = (live.taken.job.status.resolved_links or {}).values()
            if any(host == domain.lower() for domain in domains):
                return job_id
        return None

    def counts(self) -> tuple[int, int]:
        """How many jobs run, and how many wait to be started."""
        live = [live for _, live in self._still_live()]
        running = sum(job.taken.running_reported for job in live)
        return running, len(live) - running

    def _still_live(self) -> list[tuple[str, JobEntry]]:
        return [(job_id, live) for job_id, live in self._live.items() if not live.has_ended]

    async def _remove_leftovers(self) -> None:
        """Delete what a crash left of jobs that had ended."""
        try:
            live = {entry.job.id for entry in await self._ledger.live()}
            await self.networks.sweep(live)
            folder = self.folders.all
            for entry in os.scandir(folder) if folder.is_dir() else ():
                if entry.name not in live:
                    self._actions.delete(Path(entry.path))
        except Exception:
            log.exception(
                "What is left of jobs that have ended could not be deleted; the next start tries "
                "again."
            )

    async def _reconcile_all(self) -> None:
        taken = {entry.job.id: entry for entry in await self._ledger.live()}
        for job_id in self._live.keys() - taken.keys():
            del self._live[job_id]
        for executor in self._executors:
            await executor.look(
                [entry.job for entry in taken.values() if self.executor_of(entry.job) is executor]
            )
        for job_id, entry in taken.items():
            live = self._live.setdefault(job_id, JobEntry(entry))
            live.taken = entry
            # It may have ended since the ledger was read.
            if (
                live.has_ended
                or self._actions.is_busy(job_id)
                or time.monotonic() < live.paused_until
            ):
                continue
            with job_log_context(job_id):
                try:
                    await self._reconcile(live)
                except Exception as error:  # one job must not hold up the others
                    live.failed(error)

    async def _reconcile(self, live: JobEntry) -> None:
        job, executor = live.taken.job, self.executor_of(live.taken.job)
        standing = executor.standing(job)
        if not live.started and not live.taken.stop_requested and live.failure is None:
            try:
                is_started = executor.is_started(job)
            except TransientExecutorError as error:
                await self._report_waiting(live, str(error))
                return
            live.started = is_started is True
            if is_started is False:
                self._schedule_start(live)
                return
        conditions = standing.conditions
        has_begun = any(condition.phase is not Phase.NOT_STARTED for condition in conditions)
        if live.failure is not None and _nothing_started(job, executor):
            self._schedule_end(live, JobUpdate(state=JobState.FAILURE, status=live.failure), _now())
            return
        if (
            live.taken.stop_requested
            and live.failure is None
            and not has_begun
            and standing.is_settled
        ):
            text = "The job was cancelled before it was started."
            self._schedule_end(live, JobUpdate(state=JobState.SUCCESS, status=text), _now())
            return
        await self._tell(live, standing)
        billable_until = completion.billable_until(conditions, _now())
        await self._charge(job, billable_until, self._settings.charge_interval)
        lost = completion.first_failed_rank(conditions)
        is_to_stop = live.is_to_stop or lost is not None
        all_over = all(condition.is_over for condition in conditions)
        # What was never started will not start once all is settled.
        none_runs = all(
            condition.is_over or condition.phase is Phase.NOT_STARTED for condition in conditions
        )
        if standing.is_settled and (
            all_over or (none_runs and (is_to_stop or standing.end is not None))
        ):
            self._schedule_end(
                live,
                completion.final_update(live.taken, standing, lost, live.failure),
                billable_until,
            )
        elif is_to_stop and not (standing.is_settled and all_over):
            self._actions.begin(job.id, TaskKind.STOP, partial(self._stop, live), live.failed)

    async def _tell(self, live: JobEntry, standing: JobObservation) -> None:
        if standing.waits_again and live.taken.running_reported and not live.taken.stop_requested:
            await self._tell_requeued(live)
        elif not live.taken.running_reported and all(
            c.phase is not Phase.NOT_STARTED for c in standing.conditions
        ):
            await self._tell_running(live)
        elif standing.waiting_text is not None and not live.taken.stop_requested:
            await self._report_waiting(live, standing.waiting_text)

    async def _tell_running(self, live: JobEntry) -> None:
        job_id = live.taken.job.id
        self.figures.started()
        if (answer := self._answers.pop(job_id, None)) is not None:
            live.told_in_answer = True
            try:
                await self._ledger.note_running(job_id, _now(), None)
            finally:
                answer.set_result(None)
            return
        await self._ledger.note_running(job_id, _now(), RUNNING)
        self.reports_waiting.set()

    async def _report_waiting(self, live: JobEntry, text: str) -> None:
        """Tell why a job waits, each reason once."""
        if text == live.waiting_text:
            return
        live.waiting_text = text
        await self._report(live.taken.job.id, None, text)

    async def _tell_requeued(self, live: JobEntry) -> None:
        text = "Your job is back in the queue, and will start again from its beginning."
        live.told_in_answer = False
        await self._ledger.note_requeued(
            live.taken.job.id, _now(), JobUpdate(state=JobState.IN_QUEUE, status=text)
        )
        self.reports_waiting.set()

    def _schedule_start(self, live: JobEntry) -> None:
        """A start may have come to nothing, such as where a wrapper was killed at once: then it is
        repeated.
        """
        if live.starts == START_ATTEMPTS:
            live.failure = (
                f"The job could not be started: of {START_ATTEMPTS} attempts none "
                "began all of its replicas."
            )
        elif time.monotonic() > live.start_not_before:
            self._actions.begin(
                live.taken.job.id, TaskKind.START, partial(self._start, live), live.failed
            )

    async def _start(self, live: JobEntry) -> None:
        job, executor = live.taken.job, self.executor_of(live.taken.job)
        taken = await self._ledger.find(job.id)
        if taken is None or taken.stop_requested:  # it may have waited for its turn
            return
        try:
            replicas = await self._starts.prepare(job, executor)
            await executor.start(job, self.folders.work(job.id), replicas)
        except TransientExecutorError as error:
            await self._report_waiting(live, str(error))
            return
        except Exception as error:
            log.exception("The job %s could not be started.", job.id)
            live.failure = f"The job could not be started: {error}"
        else:
            live.starts += 1
            live.start_not_before = time.monotonic() + START_BACKOFF
            log.info("Started job %s with %d replicas.", job.id, len(replicas))
        self._news.set()

    async def _stop(self, live: JobEntry) -> None:
        job, executor = live.taken.job, self.executor_of(live.taken.job)
        # A requeue may have undone meanwhile what the job would be stopped for.
        if (
            live.is_to_stop
            or completion.first_failed_rank(executor.standing(job).conditions) is not None
        ):
            await executor.stop(job)

    def _schedule_end(self, live: JobEntry, report: JobUpdate, billable_until: int) -> None:
        action = partial(self._end, live, report, billable_until)
        self._actions.begin(live.taken.job.id, TaskKind.END, action, live.failed)

    async def _end(self, live: JobEntry, report: JobUpdate, billable_until: int) -> None:
        """Keep the output, note the end, and delete what belongs to the job alone.

        May be repeated after a crash.
        """
        job = live.taken.job
        if self.folders.of(job.id).is_dir():
            lost = await self._actions.collect(partial(completion.collect, job, self.folders))
            text = (
                f"{report.status} Output that could not be kept: {', '.join(lost[:5])}."
                if lost
                else report.status
            )
            report = report.model_copy(
                update={"output_folder": f"/{HOME_DRIVE}/Jobs/{job.id}", "status": text}
            )
        await self._charge(job, billable_until, None)
        await self.networks.end(job.id)
        self.executor_of(job).forget(job.id)
        # The answer to `create` may still be under way: then this must not be the first thing that
        # is heard.
        await self._ledger.report_end(
            job.id, [RUNNING, report] if live.told_in_answer else [report]
        )
        live.has_ended = True
        self.figures.ended(report.state, live.taken.stop_requested)
        log.info("Job %s ended: %s %s", job.id, report.state, report.status)
        self.reports_waiting.set()
        self._actions.delete(self.folders.of(job.id))

    async def _charge(self, job: Job, until: int, interval: float | None) -> None:
        """Note what is due since the last charge; at the end (no interval) all that is left."""
        meter = await self._ledger.meter(job.id, until)
        if meter is None:
            return
        used, charged = meter
        milliseconds = None if interval is None else int(interval * 1000)
        charge = due_charge(job, used, charged, milliseconds)
        if charge is not None:
            await self._ledger.add_charge(job.id, charge)
            self.reports_waiting.set()

    async def _report(self, job_id: str, state: JobState | None, text: str) -> None:
        await self._ledger.report(job_id, JobUpdate(state=state, status=text))
        self.reports_waiting.set()


def _nothing_started(job: Job, executor: Executor) -> bool:
    """Whether nothing of a job runs or may still begin."""
    with contextlib.suppress(TransientExecutorError):
        conditions = executor.standing(job).conditions
        return executor.is_started(job) is False and all(
            c.phase is Phase.NOT_STARTED for c in conditions
        )
    return False


def _log_once(told: set[str], message: str, *about: str, error: Exception) -> None:
    """Log an error with its traceback, unless the same was told before."""
    text = f"{type(error).__name__}: {error}"
    if text not in told:
        told.add(text)
        log.error(message, *about, exc_info=error)


def _now() -> int:
    return int(time.time() * 1000)
