"""The provider's metrics for Prometheus."""

from __future__ import annotations

import contextlib
import time
from collections import Counter as Tally
from collections.abc import Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from ucloud_orchestrator.models.job import JobState
from ucloud_orchestrator.models.session import SessionType
from ucloud_orchestrator.provider.jobs.database import JobDatabase
from ucloud_orchestrator.provider.jobs.decisions import JobPhase, JobRecord

WAITING, RUNNING, STOPPING = "waiting", "running", "stopping"
STOPPED = "stopped"
"""The kind of end of a stopped job; other kinds are final states in lower case."""
PASS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class ProviderMetrics:
    """The metrics of one provider; a registry of its own allows several in one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._jobs = Gauge(
            "ucloud_provider_jobs", "Live jobs by state.", ["state"], registry=self._registry
        )
        self._undelivered = Gauge(
            "ucloud_provider_unanswered_reports",
            "Reports and charges in the outbox.",
            ["kind"],
            registry=self._registry,
        )
        self._starts = Counter(
            "ucloud_provider_jobs_started",
            "Jobs that were reported as running.",
            registry=self._registry,
        )
        self._ends = Counter(
            "ucloud_provider_jobs_ended", "Jobs that ended.", ["kind"], registry=self._registry
        )
        self._failures = Counter(
            "ucloud_provider_report_failures",
            "Failed deliveries of reports.",
            registry=self._registry,
        )
        self._sessions = Gauge(
            "ucloud_provider_sessions_open",
            "Open sessions.",
            ["type"],
            registry=self._registry,
        )
        self._passes = Histogram(
            "ucloud_provider_reconcile_seconds",
            "Duration of a reconcile pass over all jobs.",
            buckets=PASS_BUCKETS,
            registry=self._registry,
        )
        self._last_pass = Gauge(
            "ucloud_provider_last_reconcile_timestamp_seconds",
            "Time of the last reconcile pass.",
            registry=self._registry,
        )
        for kind in (
            STOPPED,
            *(state.lower() for state in (JobState.SUCCESS, JobState.FAILURE, JobState.EXPIRED)),
        ):
            self._ends.labels(kind)
        for session_type in SessionType:
            self._sessions.labels(session_type.lower())

    def count_start(self) -> None:
        """Count a job that runs; a requeued job counts again."""
        self._starts.inc()

    def count_end(self, state: JobState | None, was_stopped: bool) -> None:
        self._ends.labels(STOPPED if was_stopped else (state or JobState.FAILURE).lower()).inc()

    def count_report_failure(self) -> None:
        self._failures.inc()

    @contextlib.contextmanager
    def session(self, session_type: SessionType) -> Iterator[None]:
        with self._sessions.labels(session_type.lower()).track_inprogress():
            yield

    @contextlib.contextmanager
    def time_pass(self) -> Iterator[None]:
        """Time one reconcile pass; a pass that raises is not recorded."""
        begin = time.perf_counter()
        yield
        self._passes.observe(time.perf_counter() - begin)
        self._last_pass.set_to_current_time()

    async def exposition(self, database: JobDatabase) -> bytes:
        found = Tally(_state(record) for record in await database.live_records())
        for state in (WAITING, RUNNING, STOPPING):
            self._jobs.labels(state).set(found[state])
        updates, charges = await database.count_undelivered()
        self._undelivered.labels("update").set(updates)
        self._undelivered.labels("charge").set(charges)
        return generate_latest(self._registry)


def _state(record: JobRecord) -> str:
    if record.is_stop_requested:
        return STOPPING
    return RUNNING if record.phase is JobPhase.RUNNING else WAITING
