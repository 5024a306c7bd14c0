"""The figures of the orchestrator, by Temporal's own metrics: counted where things happen, or
looked up.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from temporalio import activity
from temporalio.client import Client
from temporalio.common import MetricMeter

from ucloud_orchestrator.catalog import Catalog
from ucloud_orchestrator.models.end_reason import end_reason
from ucloud_orchestrator.models.job import TERMINAL_STATES, Job, JobState
from ucloud_orchestrator.store import StoreMetrics
from ucloud_orchestrator.temporal import queries
from ucloud_orchestrator.temporal.names import JOB_PROVIDER, JOB_STATE

log = logging.getLogger(__name__)

INTERVAL = 15.0
"""Seconds between two looks; Prometheus asks about as often."""
AUDIT_EVERY = 20
"""The ledger is added up once in so many looks: that reads all of it."""
LIVE_STATES = [state for state in JobState if state not in TERMINAL_STATES]
STUCK = queries.running_jobs(queries.is_set("TemporalReportedProblems"))
"""The query for jobs whose workflow tasks fail; it is in docs/operators/README.md too."""
STALE_AFTER = 180.0
"""Seconds after which an attempt to submit that was not repeated here is no longer ours."""


def count(name: str, description: str, **attributes: str) -> None:
    """Add one to a counter, in an activity."""
    activity.metric_meter().create_counter(name, description).add(1, attributes)


def count_end(job: Job) -> None:
    """Count a job that has ended, and how long it had been in the queue."""
    provider = job.specification.product.provider
    labels = {"provider": provider, "state": job.status.state, "reason": end_reason(job)}
    count("ucloud_jobs_ended", "Jobs that were settled.", **labels)
    if job.status.started_at is not None:
        waited = max(0, job.status.started_at - job.created_at) / 1000
        activity.metric_meter().create_histogram_float(
            "ucloud_queue_seconds", "From a job's creation until it ran for the last time.", "s"
        ).record(waited, {"provider": provider})


class SeenWorkflows:
    """Which workflows were counted here: a local activity runs again if its workflow task fails
    after it is done.
    """

    def __init__(self, remembered: int = 10_000) -> None:
        self._remembered = remembered
        self._seen: dict[str, None] = {}

    def add(self, workflow_id: str) -> bool:
        """Whether this is the first time; only so many are remembered."""
        if workflow_id in self._seen:
            return False
        self._seen[workflow_id] = None
        if len(self._seen) > self._remembered:
            del self._seen[next(iter(self._seen))]
        return True


class PendingSubmissions:
    """Since when the submissions of this process have been tried without an answer."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[float, float]] = {}

    def started(self, job_id: str) -> None:
        """An attempt begins, in the activity that makes it."""
        self._open[job_id] = (activity.info().scheduled_time.timestamp(), time.time())

    def finished(self, *job_ids: str) -> None:
        """The provider has said yes or no."""
        for job_id in job_ids:
            self._open.pop(job_id, None)

    def oldest_age(self) -> float:
        """Seconds since the oldest of them was first tried; 0 if there is none."""
        now = time.time()
        self._open = {
            job: times for job, times in self._open.items() if now - times[1] < STALE_AFTER
        }
        return max((now - first for first, _ in self._open.values()), default=0.0)


class MetricsCollector:
    """What is looked up again and again while a worker runs."""

    def __init__(
        self,
        meter: MetricMeter,
        client: Client,
        figures: StoreMetrics,
        catalog: Callable[[], Catalog],
        submissions: PendingSubmissions,
    ) -> None:
        self._client = client
        self._figures = figures
        self._catalog = catalog
        self._submissions = submissions
        self._last_look = meter.create_gauge_float(
            "ucloud_last_look_timestamp_seconds", "When these figures were last looked up.", "s"
        )
        self._stuck = meter.create_gauge(
            "ucloud_jobs_stuck", "Jobs whose workflow tasks fail again and again."
        )
        self._live = meter.create_gauge(
            "ucloud_jobs", "Live jobs by state, as Temporal's visibility has them."
        )
        self._holding = meter.create_gauge(
            "ucloud_jobs_holding", "Jobs that hold something in the store."
        )
        self._finished = meter.create_gauge("ucloud_jobs_archived", "Jobs in the archive.")
        self._difference = meter.create_gauge(
            "ucloud_ledger_difference", "Credits by which the books are wrong."
        )
        self._oldest = meter.create_gauge_float(
            "ucloud_oldest_unanswered_submission_seconds",
            "Since when a submission has been without an answer.",
            "s",
        )

    async def run(self) -> None:
        """Look until cancelled; a look that fails is logged, and the next one follows."""
        looks = 0
        while True:
            try:
                await self.look(audits=looks % AUDIT_EVERY == 0)
            except Exception:
                log.exception("The figures could not be looked up.")
            looks += 1
            await asyncio.sleep(INTERVAL)

    async def look(self, audits: bool) -> None:
        """Set every gauge once; `audits`: the ledger's too."""
        providers = [provider.id for provider in self._catalog().providers()]
        for provider in providers:
            for state in LIVE_STATES:
                query = queries.running_jobs(
                    queries.equals(JOB_PROVIDER, provider), queries.equals(JOB_STATE, state)
                )
                found = (await self._client.count_workflows(query)).count
                self._live.set(found, {"provider": provider, "state": state})
        self._stuck.set((await self._client.count_workflows(STUCK)).count)
        holding = await self._figures.live_jobs()
        for provider in {*providers, *holding}:
            self._holding.set(holding.get(provider, 0), {"provider": provider})
        for (provider, ended), number in (await self._figures.finished_jobs()).items():
            self._finished.set(number, {"provider": provider, "state": ended})
        self._oldest.set(self._submissions.oldest_age())
        if audits:
            self._difference.set(await self._figures.ledger_difference())
        self._last_look.set(time.time())
