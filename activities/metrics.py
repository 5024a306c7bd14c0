"""The metrics of the worker, in Temporal's own meter: counters of activities, and polled gauges."""

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

POLL_INTERVAL = 15.0
"""Seconds; Prometheus scrapes about as often."""
AUDIT_EVERY = 20
"""Polls per audit of the ledger, which reads all of its entries."""
LIVE_STATES = [state for state in JobState if state not in TERMINAL_STATES]
STUCK = queries.running_jobs(queries.is_set("TemporalReportedProblems"))
"""Jobs whose workflow tasks fail; the runbook for operators has the query too."""
STALE_AFTER = 180.0
"""Seconds after which a submission that was not retried here belongs to another worker."""


def count(name: str, description: str, **attributes: str) -> None:
    activity.metric_meter().create_counter(name, description).add(1, attributes)


def count_end(job: Job) -> None:
    provider = job.specification.product.provider
    labels = {"provider": provider, "state": job.status.state, "reason": end_reason(job)}
    count("ucloud_jobs_ended", "Jobs that were settled.", **labels)
    if job.status.started_at is not None:
        queued = max(0, job.status.started_at - job.created_at) / 1000
        activity.metric_meter().create_histogram_float(
            "ucloud_queue_seconds", "Time from a job's creation to its last start.", "s"
        ).record(queued, {"provider": provider})


class SeenWorkflows:
    """The workflows that were counted: a local activity repeats if its workflow task fails."""

    def __init__(self, size: int = 10_000) -> None:
        self._size = size
        self._seen: dict[str, None] = {}

    def add(self, workflow_id: str) -> bool:
        """Return whether the id is new. Only the latest `size` ids are kept."""
        if workflow_id in self._seen:
            return False
        self._seen[workflow_id] = None
        if len(self._seen) > self._size:
            del self._seen[next(iter(self._seen))]
        return True


class PendingSubmissions:
    def __init__(self) -> None:
        self._pending: dict[str, tuple[float, float]] = {}

    def started(self, job_id: str) -> None:
        self._pending[job_id] = (activity.info().scheduled_time.timestamp(), time.time())

    def finished(self, *job_ids: str) -> None:
        for job_id in job_ids:
            self._pending.pop(job_id, None)

    def oldest_age(self) -> float:
        """Return the seconds since the oldest submission was scheduled; 0 without any."""
        now = time.time()
        self._pending = {
            job: times for job, times in self._pending.items() if now - times[1] < STALE_AFTER
        }
        return max((now - scheduled for scheduled, _ in self._pending.values()), default=0.0)


class MetricsCollector:
    """The gauges of a worker, polled from Temporal and the store."""

    def __init__(
        self,
        meter: MetricMeter,
        client: Client,
        store: StoreMetrics,
        catalog: Callable[[], Catalog],
        submissions: PendingSubmissions,
    ) -> None:
        self._client = client
        self._store = store
        self._catalog = catalog
        self._submissions = submissions
        self._last_poll = meter.create_gauge_float(
            "ucloud_last_poll_timestamp_seconds", "Time of the last poll of these gauges.", "s"
        )
        self._stuck = meter.create_gauge(
            "ucloud_jobs_stuck", "Jobs whose workflow tasks fail again and again."
        )
        self._live = meter.create_gauge("ucloud_jobs", "Live jobs by state in Temporal.")
        self._claims = meter.create_gauge("ucloud_claims", "Claims of live jobs in the store.")
        self._archived = meter.create_gauge("ucloud_jobs_archived", "Jobs in the archive.")
        self._difference = meter.create_gauge(
            "ucloud_ledger_difference", "Credits by which wallets differ from their ledger."
        )
        self._oldest = meter.create_gauge_float(
            "ucloud_oldest_unanswered_submission_seconds",
            "Age of the oldest submission without an answer.",
            "s",
        )

    async def run(self) -> None:
        """Poll until cancelled. A poll that fails is logged."""
        polls = 0
        while True:
            try:
                await self.poll(audit=polls % AUDIT_EVERY == 0)
            except Exception:
                log.exception("The metrics could not be polled.")
            polls += 1
            await asyncio.sleep(POLL_INTERVAL)

    async def poll(self, audit: bool) -> None:
        """Set every gauge once. `audit`: the ledger's too."""
        providers = [provider.id for provider in self._catalog().providers()]
        for provider in providers:
            for state in LIVE_STATES:
                query = queries.running_jobs(
                    queries.equals(JOB_PROVIDER, provider), queries.equals(JOB_STATE, state)
                )
                number = (await self._client.count_workflows(query)).count
                self._live.set(number, {"provider": provider, "state": state})
        self._stuck.set((await self._client.count_workflows(STUCK)).count)
        claims = await self._store.count_live_jobs()
        for provider in {*providers, *claims}:
            self._claims.set(claims.get(provider, 0), {"provider": provider})
        for (provider, ended), number in (await self._store.count_finished_jobs()).items():
            self._archived.set(number, {"provider": provider, "state": ended})
        self._oldest.set(self._submissions.oldest_age())
        if audit:
            self._difference.set(await self._store.ledger_difference())
        self._last_poll.set(time.time())
