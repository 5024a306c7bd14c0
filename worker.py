"""The worker: settings in, workflows and activities onto their task queues, graceful stop.

`python -m worker` serves; `python -m worker setup` prepares what serving needs (`installation`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from argparse import ArgumentParser
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from types import FrameType
from typing import Any

import uvloop
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import (
    Client,
    WorkflowQueryFailedError,
)
from temporalio.common import MetricMeter
from temporalio.runtime import PrometheusConfig, Runtime
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import PollerBehaviorAutoscaling, UnsandboxedWorkflowRunner, Worker

from activities.access_check import AccessCheckActivities
from activities.accounting import AccountingActivities, WalletActivities
from activities.admission import AdmissionActivities
from activities.completion import ArchiveActivities, CompletionActivities
from activities.lookups import LookupActivities
from activities.metrics import MetricsCollector, PendingSubmissions
from activities.orphaned_jobs import OrphanedJobActivities
from activities.products import ProductActivities, ProductCache
from activities.provider import ProviderActivities
from activities.provider_http import ProviderHttp
from activities.provider_sync import ProviderSyncActivities
from ucloud_orchestrator.catalog import Catalog, ReloadingCatalog
from ucloud_orchestrator.models.job import Job
from ucloud_orchestrator.process.health import Check, health_routes
from ucloud_orchestrator.process.http import serve_http
from ucloud_orchestrator.process.logging import configure
from ucloud_orchestrator.process.settings import SettingsError
from ucloud_orchestrator.process.shutdown import ShutdownWatchdog
from ucloud_orchestrator.process.worker_settings import WorkerSettings
from ucloud_orchestrator.setup import require_search_attributes, run_setup
from ucloud_orchestrator.store import (
    Archive,
    ClaimStore,
    DatabaseError,
    Products,
    SchemaVersionError,
    StoreMetrics,
    Wallets,
    check_connection,
    connect,
    require_current,
)
from ucloud_orchestrator.temporal import tracing
from ucloud_orchestrator.temporal.connection import connect_to_temporal
from ucloud_orchestrator.temporal.connection_errors import ConnectionConfigError
from ucloud_orchestrator.temporal.encryption_keys import EncryptionKeyError
from ucloud_orchestrator.temporal.names import (
    QUERY_JOB,
    TASK_QUEUE,
    provider_task_queue,
)
from ucloud_orchestrator.temporal.runtime import make_runtime
from workflows import JobBatchWorkflow, JobWorkflow, ProviderCheckWorkflow, versioning
from workflows.argument_interceptor import DropSurplusArguments

log = logging.getLogger("worker")

STOP_MARGIN = 3.0
"""Seconds after `stop_timeout` at which the process ends whatever hangs, as attempts do while the
database is away.
"""
STORE_SHUTDOWN_TIMEOUT = timedelta(hours=1)
"""How long transactions of the store may take to end while a worker stops: a process leaves before
(`STOP_MARGIN`).
"""
DEADLOCK_TIMEOUT = 10
"""Seconds that a workflow may compute without a pause before it counts as hanging; the server waits
as long.
"""
CATALOG_INTERVAL = 5.0
"""Seconds between two looks for providers that have come into the catalog."""
PEER_TIMEOUT = timedelta(seconds=5)
"""How long a job that another wants to connect to may take to answer."""


FATAL_ERRORS = (
    DatabaseError,
    OSError,
    RPCError,
    RuntimeError,
    SchemaVersionError,
    EncryptionKeyError,
)
"""What ends the process with its sentence: most of it is a counterpart that is away, and a new
start may help.
"""
EXIT_UNAVAILABLE = 3
"""Its exit code."""


class JobWorker:
    """All pollers of one process: one for jobs, and one for each provider, so that a slow one holds
    up nobody else.
    """

    def __init__(
        self,
        client: Client,
        settings: WorkerSettings,
        catalog: ReloadingCatalog,
        engine: AsyncEngine,
        on_fault: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_fault` is called when it cannot go on, before what runs is finished."""
        self._client = client
        self._settings = settings
        self._catalog = catalog
        self._engine = engine
        self._offered = ProductCache(Products(engine))
        self._submissions = PendingSubmissions()
        self._on_fault = on_fault
        self._stop = asyncio.Event()
        self._stop_timeout = timedelta(seconds=settings.stop_timeout)
        self._providers: dict[str, ServedProvider] = {}

    async def run(self) -> None:
        """Serve until `stop` is called, then let what runs finish."""
        async with self._jobs_worker() as jobs:
            try:
                while not self._stop.is_set():
                    self._check_served_providers()
                    self._serve_new_providers()
                    try:
                        async with asyncio.timeout(CATALOG_INTERVAL):
                            await self._stop.wait()
                    except TimeoutError:
                        continue
            except BaseException:
                self._on_fault()
                raise
            finally:
                # All at once: one after the other they would take the patience twice.
                await asyncio.gather(
                    jobs.shutdown(), *(served.stop() for served in self._providers.values())
                )

    def gauges(self, meter: MetricMeter) -> MetricsCollector:
        """The figures that are looked up while the worker runs."""
        return MetricsCollector(
            meter,
            self._client,
            StoreMetrics(self._engine),
            self._current_catalog,
            self._submissions,
        )

    def stop(self) -> None:
        """Take no more work, finish what runs, and let `run` return."""
        self._stop.set()

    async def _find_peer(self, job_id: str) -> Job | None:
        """A job that has not left its workflow; None if there is none of this id."""
        try:
            handle = self._client.get_workflow_handle(job_id)
            return Job.model_validate(
                await handle.query(QUERY_JOB, result_type=dict, rpc_timeout=PEER_TIMEOUT)
            )
        except WorkflowQueryFailedError:  # another workflow than a job's
            return None
        except RPCError as error:
            if error.status in {RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT}:
                return None
            raise

    def _current_catalog(self) -> Catalog:
        return self._catalog.current

    def _jobs_worker(self) -> Worker:
        archive, holdings, wallets = (
            Archive(self._engine),
            ClaimStore(self._engine),
            Wallets(self._engine),
        )
        admission = AdmissionActivities(
            self._current_catalog, holdings, self._find_peer, self._offered
        )
        settlement, accounting = (
            CompletionActivities(holdings, archive),
            AccountingActivities(wallets),
        )
        monitoring = AccessCheckActivities(self._current_catalog, holdings, self._client)
        reconciliation = OrphanedJobActivities(holdings, self._client)
        directory = LookupActivities(self._current_catalog, holdings)
        finished, money = (
            ArchiveActivities(archive),
            WalletActivities(wallets, self._settings.operators),
        )
        worker = Worker(
            self._client,
            task_queue=TASK_QUEUE,
            workflows=[JobWorkflow, JobBatchWorkflow, ProviderCheckWorkflow],
            activities=[
                admission.admit,
                admission.admit_batch,
                settlement.settle,
                settlement.withdraw,
                settlement.withdraw_batch,
                settlement.keep_updates,
                accounting.charge,
                accounting.reserve,
                monitoring.find_lost_access,
                monitoring.cancel_jobs,
                reconciliation.find_orphaned,
                reconciliation.retrieve_orphaned,
                reconciliation.settle_orphaned,
                finished.retrieve,
                finished.browse,
                money.grant,
                money.browse,
                directory.browse_memberships,
                directory.find_holder,
            ],
            interceptors=[DropSurplusArguments()],
            workflow_runner=UnsandboxedWorkflowRunner(),  # see decision 0011
            patch_activation_callback=versioning.activation(self._settings.compatible_with),
            max_cached_workflows=self._settings.max_cached_workflows,
            workflow_task_poller_behavior=PollerBehaviorAutoscaling(),
            activity_task_poller_behavior=PollerBehaviorAutoscaling(),
            graceful_shutdown_timeout=STORE_SHUTDOWN_TIMEOUT,
        )
        assert worker._workflow_worker is not None
        worker._workflow_worker._deadlock_timeout_seconds = DEADLOCK_TIMEOUT  # see decision 0012
        return worker

    def _serve_new_providers(self) -> None:
        for provider in self._current_catalog().providers():
            if provider.id in self._providers:
                continue
            key_file = self._settings.keys_dir / f"{provider.id}.private.pem"
            address = self._settings.provider_addresses.get(provider.id, provider.address)
            try:
                http = ProviderHttp(
                    provider.id, address, key_file.read_text(), self._settings.issuer
                )
            except (OSError, ValueError) as error:
                log.error(
                    "Provider %s is not served: its key %s cannot be used (%s).",
                    provider.id,
                    key_file,
                    error,
                )
                continue
            holdings = ClaimStore(self._engine)
            calls = ProviderActivities(
                self._current_catalog, http, self._offered, self._submissions, holdings
            )
            products = ProductActivities(provider.id, http, Products(self._engine))
            verification = ProviderSyncActivities(provider.id, http, holdings, self._client)
            worker = Worker(
                self._client,
                task_queue=provider_task_queue(provider.id),
                activities=[
                    calls.submit,
                    calls.submit_batch,
                    calls.terminate,
                    calls.terminate_batch,
                    calls.extend,
                    calls.suspend,
                    calls.unsuspend,
                    calls.open_session,
                    calls.open_logs,
                    verification.verify,
                    products.refresh_products,
                ],
                max_concurrent_activities=provider.limits.maximum_concurrent_calls,
                max_task_queue_activities_per_second=provider.limits.calls_per_second,
                activity_task_poller_behavior=PollerBehaviorAutoscaling(),
                graceful_shutdown_timeout=self._stop_timeout,
            )
            self._providers[provider.id] = ServedProvider(worker, http)
            log.info("Serving provider %s at %s.", provider.id, address)

    def _check_served_providers(self) -> None:
        """Raise if calls to a provider are no longer taken: only a new process takes them up
        again.
        """
        for provider_id, served in self._providers.items():
            if served.running.done():
                raise RuntimeError(
                    f"Calls to provider {provider_id} are no longer taken: "
                    f"{served.running.exception()}"
                )


class ServedProvider:
    """The poller of one provider's calls, and the connections that they use."""

    def __init__(self, worker: Worker, http: ProviderHttp) -> None:
        self._worker = worker
        self._http = http
        self.running = asyncio.create_task(worker.run())

    async def stop(self) -> None:
        """Let the calls finish, and close the connections."""
        await self._worker.shutdown()
        await asyncio.wait([self.running])
        await self._http.close()


async def serve(settings: WorkerSettings, as_json: bool = False) -> None:
    """Connect, check the database, say what is served, and serve until SIGTERM or SIGINT."""
    catalog = ReloadingCatalog(settings.catalog)
    engine = connect(settings.database_url)
    try:
        await check_connection(engine)
        await require_current(engine)
        runtime = _runtime(settings.metrics_address)
        client = await connect_to_temporal(runtime=runtime)
        await require_search_attributes(client)
        deadline = ShutdownWatchdog(settings.stop_timeout + STOP_MARGIN)
        worker = JobWorker(
            client, settings, catalog, engine, lambda: deadline.begin(EXIT_UNAVAILABLE)
        )

        async def reach_temporal() -> None:
            await client.service_client.check_health()

        loop = asyncio.get_running_loop()

        def stop(_number: int, _frame: FrameType | None) -> None:
            deadline.begin()
            with contextlib.suppress(RuntimeError):  # the loop may be closed already
                loop.call_soon_threadsafe(worker.stop)

        for stop_signal in (signal.SIGTERM, signal.SIGINT):
            signal.signal(
                stop_signal, stop
            )  # unlike a handler of the loop, it does not need the loop
        providers = [provider.id for provider in catalog.current.providers()]
        _say(
            {
                "event": "ready",
                "namespace": client.namespace,
                "taskQueue": TASK_QUEUE,
                "providers": providers,
            },
            f"Serving jobs of {client.namespace} with {len(catalog.current.applications)} "
            "applications and the "
            f"providers {', '.join(providers) or '(none)'}.",
            as_json,
        )
        if settings.compatible_with is not None:
            waiting = ", ".join(versioning.inactive_patches(settings.compatible_with)) or "nothing"
            log.info(
                "Held back, because release %s does not know it: %s.",
                settings.compatible_with,
                waiting,
            )
        async with _observed(
            worker,
            runtime,
            settings,
            {"database": StoreMetrics(engine).check, "temporal": reach_temporal},
        ):
            await worker.run()
    finally:
        await engine.dispose()
    log.info("Stopped.")


def _runtime(metrics_address: str | None) -> Runtime:
    """A runtime of the SDK, which serves its figures and ours to Prometheus if an address is
    given.
    """
    return make_runtime(
        None if metrics_address is None else PrometheusConfig(bind_address=metrics_address)
    )


@contextlib.asynccontextmanager
async def _observed(
    worker: JobWorker, runtime: Runtime, settings: WorkerSettings, checks: dict[str, Check]
) -> AsyncIterator[None]:
    """Meanwhile look up the figures and answer health checks, as far as the settings ask for
    that.
    """
    async with contextlib.AsyncExitStack() as stack:
        if settings.metrics_address is not None:
            looking = asyncio.create_task(worker.gauges(runtime.metric_meter).run())
            stack.callback(looking.cancel)
        if settings.health_port is not None:
            routes = health_routes(checks)
            port = await stack.enter_async_context(
                serve_http(settings.health_host, settings.health_port, routes)
            )
            log.info(
                "Health checks are answered at http://%s:%d/healthz and /readyz.",
                settings.health_host,
                port,
            )
        yield


async def setup(settings: WorkerSettings, as_json: bool = False) -> None:
    """Prepare what serving needs, and say of each part whether it was there. May be repeated."""
    Runtime.set_default(make_runtime())
    steps = []
    async for step in run_setup(settings):
        steps.append({"outcome": step.outcome, "what": step.what})
        if not as_json:
            sys.stdout.write(f"{step}\n")
    _say({"event": "set up", "steps": steps}, "Everything is ready.", as_json)


def main(arguments: Sequence[str] = ()) -> int:
    """Run the worker, or its setup; returns the exit code."""
    parser = ArgumentParser(prog="worker", description="Serve jobs, or prepare what serving needs.")
    parser.add_argument("command", nargs="?", choices=["serve", "setup"], default="serve")
    parser.add_argument("--json", action="store_true", help="say what is ready as one line of JSON")
    chosen = parser.parse_args(arguments)
    try:
        settings = WorkerSettings.read()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    configure(settings.log_level, settings.log_format)
    try:
        tracing.start("ucloud-worker")
        uvloop.run((setup if chosen.command == "setup" else serve)(settings, chosen.json))
    except ConnectionConfigError as error:
        log.error("%s", error)
        return 2
    except FATAL_ERRORS as error:
        log.error("%s", error)
        return EXIT_UNAVAILABLE
    finally:
        tracing.stop()
    return 0


def _say(event: dict[str, Any], sentence: str, as_json: bool) -> None:
    sys.stdout.write((json.dumps(event) if as_json else sentence) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    code = main(sys.argv[1:])
    # The Temporal SDK may abort while the interpreter shuts down (sdk-python issue 300), so it
    # never gets there.
    sys.stdout.flush()
    logging.shutdown()
    os._exit(code)
