"""Compare the metrics of a hundred jobs with the archive, the ledger and the jobs' users."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import shutil
import signal
import sqlite3
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from client import Actor, JobClient, JobRejected, ProviderClient
from tests.builders import Document, file, integer, product, specification_document
from tests.end_to_end import promql
from tests.end_to_end.running_stack import Stack
from tests.end_to_end.scrape import Scrape
from tests.waiting import eventually
from ucloud_orchestrator.cli.supervisor import free_port
from ucloud_orchestrator.models import ErrorCode, Job, JobSpecification, JobState, JobUpdate
from ucloud_orchestrator.models.product import ProductCategory
from ucloud_orchestrator.temporal.names import TASK_QUEUE, WORKFLOW

WORKER, PROVIDER = free_port(), free_port()
PAID, FREE, CANCELLED, EXPIRED, BROKEN, UNKNOWN, UNREADABLE = 40, 15, 15, 5, 5, 12, 8
GRANTED = 1_000_000
COUNTERS = ("ucloud_jobs_ended", "ucloud_admissions_rejected", "ucloud_queue_seconds_count")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UCLOUD_METRICS_ADDRESS", f"127.0.0.1:{WORKER}")
        patch.setenv("UCLOUD_PROVIDER_METRICS_ADDRESS", f"127.0.0.1:{PROVIDER}")
        running = Stack(tmp_path_factory.mktemp("observed"))
        yield running
        running.stop()


def asked_for(application: str, category: str = "cpu", **parameters: Any) -> Document:
    asked = {"product": product(category), "parameters": parameters, "allowDuplicateJob": True}
    return specification_document(application, "1.0", **asked)


@dataclass
class Hundred:
    """A hundred jobs, and their ends as their user sees them."""

    stack: Stack
    jobs: JobClient
    ended: list[Job] = field(default_factory=list)
    rejections: Counter[str] = field(default_factory=Counter)

    async def all(self) -> None:
        missing = file("/examples/no-such-file.txt")
        await asyncio.gather(
            *(self.runs(asked_for("exit", category="paid", code=integer(0))) for _ in range(PAID)),
            *(self.runs(asked_for("exit", code=integer(3))) for _ in range(FREE)),
            *(self.cancelled() for _ in range(CANCELLED)),
            *(
                self.runs(
                    asked_for("sleep", seconds=integer(300)) | {"timeAllocation": {"seconds": 3}}
                )
                for _ in range(EXPIRED)
            ),
            *(self.broken() for _ in range(BROKEN)),
            *(self.rejected(asked_for("no-such-application")) for _ in range(UNKNOWN)),
            *(self.rejected(asked_for("word-count", text=missing)) for _ in range(UNREADABLE)),
        )

    async def runs(self, document: dict[str, Any]) -> None:
        await self.wait(await self.jobs.create(JobSpecification.model_validate(document)))

    async def cancelled(self) -> None:
        job = await self.sleeping()
        await self.jobs.cancel(job.id)
        await self.wait(job)

    async def broken(self) -> None:
        """Run a job, and kill all its processes."""
        job = await self.sleeping()

        def kill() -> bool:
            for pid in self.stack.processes_of(job.id):
                os.kill(pid, signal.SIGKILL)
            return not self.stack.processes_of(job.id)

        await eventually(lambda: asyncio.to_thread(kill))
        await self.wait(job)

    async def sleeping(self) -> Job:
        job = await self.jobs.create(
            JobSpecification.model_validate(asked_for("sleep", seconds=integer(300)))
        )

        async def runs() -> bool:
            return (await self.jobs.retrieve(job.id)).status.state is JobState.RUNNING

        await eventually(runs, 40)
        return job

    async def rejected(self, document: dict[str, Any]) -> None:
        with pytest.raises(JobRejected) as raised:
            await self.jobs.create(JobSpecification.model_validate(document))
        self.rejections[raised.value.code] += 1

    async def wait(self, job: Job) -> None:
        self.ended.append(await self.jobs.wait(job.id))

    @property
    def states(self) -> Counter[str]:
        return Counter(job.status.state for job in self.ended)


@pytest.fixture(scope="module")
async def hundred(stack: Stack) -> Hundred:
    """Complete all jobs, with two scrapes a second."""
    jobs = await JobClient.connect(Actor(username=getpass.getuser()), stack.ready["temporal"])
    payer = jobs.workspace
    await jobs.grant(payer, ProductCategory(name="paid", provider="local"), GRANTED)
    all_of_them = Hundred(stack, jobs)
    async with scraping():
        await all_of_them.all()
    return all_of_them


@asynccontextmanager
async def scraping() -> AsyncIterator[None]:
    """Scrape until the jobs have ended: no counter may fall, and no more jobs may be live than
    exist.
    """
    done = asyncio.Event()

    async def scrape() -> int:
        before: Counter[str] = Counter()
        scrapes = 0
        while not done.is_set():
            worker, provider = (
                await asyncio.to_thread(Scrape.of, WORKER),
                await asyncio.to_thread(Scrape.of, PROVIDER),
            )
            now = Counter({name: worker.sum(name) for name in COUNTERS})
            now["ends"] = provider.sum("ucloud_provider_jobs_ended_total")
            assert all(now[name] >= before[name] for name in now), (before, now)
            # A job expires at its deadline, whatever the provider does with its processes.
            assert now["ucloud_jobs_ended"] <= now["ends"] + EXPIRED
            # A job that ends while the figures are written may be in both of one scrape.
            assert (
                provider.sum("ucloud_provider_jobs") + before["ends"] <= 100 - UNKNOWN - UNREADABLE
            )
            before, scrapes = now, scrapes + 1
            with_timeout = asyncio.wait_for(done.wait(), 0.5)
            await asyncio.gather(with_timeout, return_exceptions=True)
        return scrapes

    task = asyncio.create_task(scrape())
    try:
        yield
    finally:
        done.set()
    assert await task > 3


@pytest.mark.long
async def test_a_hundred_jobs_have_the_expected_ends(hundred: Hundred) -> None:
    assert hundred.states == {
        "SUCCESS": PAID + FREE + CANCELLED,
        "EXPIRED": EXPIRED,
        "FAILURE": BROKEN,
    }
    assert hundred.rejections == {
        ErrorCode.VERIFICATION_FAILED: UNKNOWN,
        ErrorCode.PROVIDER_REJECTED: UNREADABLE,
    }


@pytest.mark.long
async def test_worker_metrics_match_the_archive_and_the_ledger(
    hundred: Hundred, stack: Stack
) -> None:
    archived = await hundred.jobs.browse(limit=200)
    assert Counter(job.status.state for job in archived) == hundred.states

    async def looked_up() -> Scrape | None:
        seen = await asyncio.to_thread(Scrape.of, WORKER)
        return seen if seen.sum("ucloud_jobs_archived") == len(archived) else None

    seen = await eventually(looked_up, 40)
    assert seen is not None
    for state, number in hundred.states.items():
        assert seen.sum("ucloud_jobs_archived", provider="local", state=state) == number
        assert seen.sum("ucloud_jobs_ended", provider="local", state=state) == number
    assert seen.sum("ucloud_jobs_ended", state="SUCCESS", reason="ended") == PAID + FREE
    assert seen.sum("ucloud_admissions_rejected", code="VERIFICATION_FAILED") == UNKNOWN
    assert seen.sum("ucloud_provider_errors", provider="local", kind="400") == UNREADABLE
    started = [job for job in archived if job.status.started_at is not None]
    assert seen.sum("ucloud_queue_seconds_count", provider="local") == len(started)
    queued = (
        sum(job.status.started_at - job.created_at for job in started if job.status.started_at)
        / 1000
    )
    assert seen.sum("ucloud_queue_seconds_sum", provider="local") == pytest.approx(queued, abs=1)
    for empty in (
        "ucloud_jobs",
        "ucloud_claims",
        "ucloud_jobs_stuck",
        "ucloud_ledger_difference",
    ):
        assert empty in seen.names
        assert seen.sum(empty) == 0, empty
    assert seen.sum("ucloud_oldest_unanswered_submission_seconds") == 0
    with sqlite3.connect(f"file:{stack.folder / 'store.sqlite'}?mode=ro", uri=True) as store:
        ((available, reserved, spent),) = store.execute(
            "SELECT available, reserved, spent FROM wallets"
        )
    store.close()
    assert spent == sum(job.billing.credits_charged for job in archived) > 0
    assert (available, reserved) == (GRANTED - spent, 0)


@pytest.mark.long
async def test_provider_metrics_match_its_jobs(hundred: Hundred) -> None:
    def taken() -> Scrape | None:
        seen = Scrape.of(PROVIDER)
        return seen if seen.sum("ucloud_provider_unanswered_reports") == 0 else None

    seen = await eventually(lambda: asyncio.to_thread(taken))
    assert seen is not None
    kinds = {
        "success": PAID + FREE,
        "stopped": CANCELLED + EXPIRED,
        "failure": BROKEN,
        "expired": 0,
    }
    for kind, number in kinds.items():
        assert seen.sum("ucloud_provider_jobs_ended_total", kind=kind) == number, kind
    assert seen.sum("ucloud_provider_jobs_started_total") == len(hundred.ended)
    assert seen.sum("ucloud_provider_jobs") == 0
    assert seen.sum("ucloud_provider_reconcile_seconds_count") > 0


@pytest.fixture(scope="module")
async def rare(hundred: Hundred, stack: Stack) -> AsyncIterator[None]:
    """Cause rare metrics: an ignored update, and a workflow whose tasks fail."""
    job = await hundred.sleeping()
    reports = await ProviderClient.connect("local", stack.ready["temporal"])
    await reports.update(
        job.id, [JobUpdate(status="It was suspended.", expected_state=JobState.SUSPENDED)]
    )
    await hundred.jobs.cancel(job.id)
    await hundred.wait(job)
    start = [
        "workflow",
        "start",
        "--type",
        WORKFLOW,
        "--task-queue",
        TASK_QUEUE,
        "--workflow-id",
        "stuck",
    ]
    await asyncio.to_thread(stack.temporal, *start, "--input", '"This is not a job."')
    await eventually(lambda: Scrape.of(WORKER).sum("temporal_workflow_task_execution_failed"))
    yield
    await asyncio.to_thread(stack.temporal, "workflow", "terminate", "--workflow-id", "stuck")


@pytest.mark.usefixtures("rare")
def test_alerts_and_dashboard_use_existing_metrics() -> None:
    worker, provider = Scrape.of(WORKER), Scrape.of(PROVIDER)
    expressions = promql.alert_expressions() + promql.dashboard_expressions()
    assert len(expressions) > 30
    known_labels = {"instance", "job"}
    for expression in expressions:
        asked = promql.metrics(expression)
        assert asked, expression
        for name, labels in asked.items():
            scrape = worker if name in worker.names else provider
            assert name == "up" or name in scrape.names, expression
            assert labels <= scrape.labels(name) | known_labels, expression
        groups = set[str]().union(*(worker.labels(name) | provider.labels(name) for name in asked))
        assert promql.grouped_by(expression) <= groups | known_labels, expression


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[str]:
    """Run Prometheus with our configuration and these ports; return its URL."""
    if shutil.which("prometheus") is None:
        why = "needs Debian's package prometheus"
        pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)
    port = free_port()
    text = (promql.FOLDER / "prometheus.yml").read_text().replace("15s", "1s")
    for documented, here in ((9464, WORKER), (9465, PROVIDER)):
        assert f":{documented}" in text
        text = text.replace(f":{documented}", f":{here}")
    (tmp_path / "prometheus.yml").write_text(text)
    shutil.copy(promql.FOLDER / "alerts.yml", tmp_path)
    command = [
        "prometheus",
        f"--config.file={tmp_path}/prometheus.yml",
        f"--storage.tsdb.path={tmp_path}/data",
    ]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    process = subprocess.Popen(command)
    yield f"http://127.0.0.1:{port}/api/v1"
    process.terminate()
    process.wait(20)


@pytest.mark.usefixtures("rare")
@pytest.mark.long
async def test_prometheus_loads_the_rules_and_the_dashboard(prometheus: str) -> None:
    async with httpx.AsyncClient(base_url=prometheus, verify=False) as client:

        async def answered(expression: str) -> bool:
            answer = await client.get("/query", params={"query": expression})
            assert answer.status_code in {200, 503}, answer.text
            return answer.status_code == 200 and bool(answer.json()["data"]["result"])

        async def is_up() -> bool:
            with contextlib.suppress(httpx.ConnectError):
                return await answered("sum(up) == 2")
            return False

        await eventually(is_up)
        for expression in promql.dashboard_expressions():
            await eventually(partial(answered, expression))

        async def evaluated() -> bool:
            (group,) = (await client.get("/rules")).json()["data"]["groups"]
            return {rule["health"] for rule in group["rules"]} == {"ok"}

        await eventually(evaluated)
