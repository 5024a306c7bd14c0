"""The cost of a process that does nothing, by `subprocess` and by PSI/J."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psij


def plain_processes(count: int, concurrent: int) -> float:
    """Run `true` with `subprocess`; returns the seconds."""
    return _many(count, concurrent, lambda: subprocess.run(["/bin/true"], check=True))


def psij_jobs(count: int, concurrent: int) -> float:
    """Run `true` with PSI/J's local executor; returns the seconds."""
    executor = psij.JobExecutor.get_instance("local")
    ends: dict[str, threading.Event] = {}

    class StatusCallback(psij.JobStatusCallback):
        def job_status_changed(self, job: psij.Job, status: psij.JobStatus) -> None:
            if status.final:
                ends[job.id].set()

    executor.set_job_status_callback(StatusCallback())

    def one() -> None:
        job = psij.Job(psij.JobSpec(executable="/bin/true"))
        ends[job.id] = threading.Event()
        executor.submit(job)
        assert ends[job.id].wait(60)

    return _many(count, concurrent, one)


def _many(count: int, concurrent: int, one: Callable[[], object]) -> float:
    begun = time.perf_counter()
    with ThreadPoolExecutor(concurrent) as pool:
        for done in [pool.submit(one) for _ in range(count)]:
            done.result()
    return time.perf_counter() - begun
