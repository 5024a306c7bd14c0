"""The provider's figures for Prometheus: counted where things happen, or looked up when it asks."""

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
from ucloud_orchestrator.provider.jobs.database import JobDatabase, JobRecord

WAITING, RUNNING, STOPPING = "waiting", "running", "stopping"
STOPPED = "stopped"
"""How a job ended that somebody stopped; the others ended in their state, in lower case."""
LOOK_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class ProviderMetrics:
    """What one provider counts; its registry is its own, so that several can live in one
    process.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._jobs = Gauge(
            "ucloud_provider_jobs", "Live jobs by state.", ["state"], registry=self._registry
        )
        self._waiting = Gauge(
            "ucloud_provider_unanswered_reports",
            "Reports and charges that the orchestrator has not taken.",
            ["kind"],
            registry=self._registry,
        )
        self._starts = Counter(
            "ucloud_provider_jobs_started", "Jobs that came to run.", registry=self._registry
        )
        self._ends = Counter(
            "ucloud_provider_jobs_ended", "Jobs that ended.", ["kind"], registry=self._registry
        )
        self._failures = Counter(
            "ucloud_provider_report_failures",
            "Attempts to report that were in vain.",
            registry=self._registry,
        )
        self._sessions = Gauge(
            "ucloud_provider_sessions_open",
            "Sessions that are connected now.",
            ["type"],
            registry=self._registry,
        )
        self._looks = Histogram(
            "ucloud_provider_look_seconds",
            "A look at all jobs.",
            buckets=LOOK_BUCKETS,
            registry=self._registry,
        )
        self._last_look = Gauge(
            "ucloud_provider_last_look_timestamp_seconds",
            "When all jobs were looked at.",
            registry=self._registry,
        )
        for kind in (
            STOPPED,
            *(state.lower() for state in (JobState.SUCCESS, JobState.FAILURE, JobState.EXPIRED)),
        ):
            self._ends.labels(kind)
        for session_type in SessionType:
            self._sessions.labels(session_type.lower())

    def started(self) -> None:
        """A job has come to run; one that its scheduler starts again counts again."""
        self._starts.inc()

    def ended(self, state: JobState | None, was_stopped: bool) -> None:
        """A job has ended."""
        self._ends.labels(STOPPED if was_stopped else (state or JobState.FAILURE).lower()).inc()

    def report_failed(self) -> None:
        """An attempt to report was in vain, and will be repeated."""
        self._failures.inc()

    @contextlib.contextmanager
    def session(self, session_type: SessionType) -> Iterator[None]:
        """Meanwhile a session is open."""
        with self._sessions.labels(session_type.lower()).track_inprogress():
            yield

    @contextlib.contextmanager
    def look(self) -> Iterator[None]:
        """Meanwhile all jobs are looked at; one that fails is no look."""
        begin = time.perf_counter()
        yield
        self._looks.observe(time.perf_counter() - begin)
        self._last_look.set_to_current_time()

    async def exposition(self, ledger: JobDatabase) -> bytes:
        """All figures in Prometheus' text format."""
        found = Tally(_state(taken) for taken in await ledger.live())
        for state in (WAITING, RUNNING, STOPPING):
            self._jobs.labels(state).set(found[state])
        updates, charges = await ledger.count_unanswered()
        self._waiting.labels("update").set(updates)
        self._waiting.labels("charge").set(charges)
        return generate_latest(self._registry)


def _state(taken: JobRecord) -> str:
    if taken.stop_requested:
        return STOPPING
    return RUNNING if taken.running_reported else WAITING
