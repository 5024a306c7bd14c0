"""The worker: it reads settings, serves workflows and activities, and stops gracefully.

`python -m worker` serves; `python -m worker setup` prepares what serving needs (`setup`).
"""

from __future__ import annotations

from ucloud_orchestrator.process.extras import require_extra

if __name__ == "__main__":
    require_extra("worker")

import asyncio
import contextlib
import json
import logging
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import uvloop
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client
from temporalio.common import MetricMeter
from temporalio.runtime import PrometheusConfig, Runtime
from temporalio.service import RPCError
from temporalio.worker import PollerBehaviorAutoscaling, UnsandboxedWorkflowRunner, Worker

import workflows
from activities.access_check import AccessCheckActivities
from activities.accounting import AccountingActivities, WalletActivities
from activities.admission import AdmissionActivities
from activities.completion import ArchiveActivities, CompletionActivities
from activities.job_references import find_live_job
from activities.lookups import LookupActivities
from activities.metrics import MetricsCollector, PendingSubmissions
from activities.orphaned_jobs import OrphanedJobActivities
from activities.products import ProductActivities, ProductCache
from activities.provider import ProviderActivities
from activities.provider_http import ProviderHttp
from activities.provider_sync import ProviderSyncActivities
from ucloud_orchestrator.catalog import Catalog, ReloadingCatalog
from ucloud_orchestrator.process.health import Check, serve_health
from ucloud_orchestrator.process.logging import configure_logging
from ucloud_orchestrator.process.settings import SettingsError
from ucloud_orchestrator.process.shutdown import ShutdownWatchdog, exit_process, handle_stop_signals
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
from ucloud_orchestrator.temporal.names import TASK_QUEUE, provider_task_queue
from ucloud_orchestrator.temporal.runtime import make_runtime
from ucloud_orchestrator.temporal.worker_group import WorkerGroup
from workflows import versioning
from workflows.argument_interceptor import DropSurplusArguments

log = logging.getLogger("worker")

STOP_MARGIN = 3.0
"""Seconds after `stop_timeout` at which the process ends, even if attempts hang."""
STORE_SHUTDOWN_TIMEOUT = timedelta(hours=1)
"""For transactions of the store during a shutdown. The process ends earlier (`STOP_MARGIN`)."""
DEADLOCK_TIMEOUT = 10
"""Seconds that a workflow task may compute without yielding; the server has the same limit."""
CATALOG_INTERVAL = 5.0
"""Seconds between two searches of the catalog for new providers."""
FATAL_ERRORS = (
    DatabaseError,
    OSError,
    RPCError,
    RuntimeError,
    SchemaVersionError,
    EncryptionKeyError,
)
"""Errors that end the process with exit code 3; a restart may help."""
EXIT_UNAVAILABLE = 3


class JobWorker:
    """The Temporal workers of one process: one for jobs, and one for each provider.

    With a worker of its own, a slow provider does not delay the calls to others.
    """

    def __init__(
        self,
        client: Client,
        settings: WorkerSettings,
        catalog: ReloadingCatalog,
        engine: AsyncEngine,
        on_fault: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_fault` is called on an error in `run`, before the graceful shutdown."""
        self._client = client
        self._settings = settings
        self._catalog = catalog
        self._engine = engine
        self._on_fault = on_fault
        self._claims = ClaimStore(engine)
        self._products = Products(engine)
        self._product_cache = ProductCache(self._products)
        self._submissions = PendingSubmissions()
        self._providers = WorkerGroup()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve until `stop` is called, then let running calls finish."""
        async with self._new_job_worker() as jobs:
            try:
                while not self._stop.is_set():
                    self._check_providers()
                    self._serve_new_providers()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(CATALOG_INTERVAL):
                            await self._stop.wait()
            except BaseException:
                self._on_fault()
                raise
            finally:
                # Together, so that they share one graceful timeout.
                await asyncio.gather(jobs.shutdown(), self._providers.shutdown())

    def stop(self) -> None:
        """Accept no more work, finish what runs, and let `run` return."""
        self._stop.set()

    def metrics(self, meter: MetricMeter) -> MetricsCollector:
        store = StoreMetrics(self._engine)
        return MetricsCollector(
            meter, self._client, store, self._current_catalog, self._submissions
        )

    def _current_catalog(self) -> Catalog:
        return self._catalog.current

    def _new_job_worker(self) -> Worker:
        worker = Worker(
            self._client,
            task_queue=TASK_QUEUE,
            workflows=workflows.WORKFLOWS,
            activities=self._job_activities(),
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

    def _job_activities(self) -> list[Callable[..., Any]]:
        catalog, claims = self._current_catalog, self._claims
        archive, wallets = Archive(self._engine), Wallets(self._engine)
        find_peer = partial(find_live_job, self._client)
        admission = AdmissionActivities(catalog, claims, find_peer, self._product_cache)
        completion = CompletionActivities(claims, archive)
        accounting = AccountingActivities(wallets)
        access_check = AccessCheckActivities(catalog, claims, self._client)
        orphaned_jobs = OrphanedJobActivities(claims, self._client)
        archived_jobs = ArchiveActivities(archive)
        user_wallets = WalletActivities(wallets, self._settings.operators)
        lookups = LookupActivities(catalog, claims)
        return [
            admission.admit,
            admission.admit_batch,
            completion.settle,
            completion.withdraw,
            completion.withdraw_batch,
            completion.store_updates,
            accounting.charge,
            accounting.reserve,
            access_check.find_lost_access,
            access_check.cancel_jobs,
            orphaned_jobs.find_orphaned,
            orphaned_jobs.retrieve_orphaned,
            orphaned_jobs.settle_orphaned,
            archived_jobs.retrieve,
            archived_jobs.browse,
            user_wallets.grant,
            user_wallets.browse,
            lookups.browse_memberships,
            lookups.find_holder,
        ]

    def _serve_new_providers(self) -> None:
        for provider in self._current_catalog().providers():
            if provider.id in self._providers:
                continue
            key_file = self._settings.keys_dir / f"{provider.id}.private.pem"
            address = self._settings.provider_addresses.get(provider.id, provider.address)
            try:
                key = key_file.read_text()
                http = ProviderHttp(provider.id, address, key, self._settings.issuer)
            except (OSError, ValueError) as error:
                log.error(
                    "Provider %s is not served: its key %s cannot be used (%s).",
                    provider.id,
                    key_file,
                    error,
                )
                continue
            worker = Worker(
                self._client,
                task_queue=provider_task_queue(provider.id),
                activities=self._provider_activities(provider.id, http),
                max_concurrent_activities=provider.limits.maximum_concurrent_calls,
                max_task_queue_activities_per_second=provider.limits.calls_per_second,
                activity_task_poller_behavior=PollerBehaviorAutoscaling(),
                graceful_shutdown_timeout=timedelta(seconds=self._settings.stop_timeout),
            )
            self._providers.start(provider.id, worker, http.close)
            log.info("Serving provider %s at %s.", provider.id, address)

    def _provider_activities(self, provider: str, http: ProviderHttp) -> list[Callable[..., Any]]:
        calls = ProviderActivities(
            self._current_catalog, http, self._product_cache, self._submissions, self._claims
        )
        products = ProductActivities(provider, http, self._products)
        sync = ProviderSyncActivities(provider, http, self._claims, self._client)
        return [
            calls.submit,
            calls.submit_batch,
            calls.terminate,
            calls.terminate_batch,
            calls.extend,
            calls.suspend,
            calls.unsuspend,
            calls.open_session,
            calls.open_logs,
            sync.verify,
            products.refresh_products,
        ]

    def _check_providers(self) -> None:
        """Raise if a provider's worker has stopped: only a new process can serve it again."""
        for provider, error in self._providers.failures().items():
            raise RuntimeError(f"The provider {provider} is no longer served: {error}")


async def serve(settings: WorkerSettings, as_json: bool = False) -> None:
    """Check the database and Temporal, and serve until SIGTERM or SIGINT."""
    catalog = ReloadingCatalog(settings.catalog)
    engine = connect(settings.database_url)
    try:
        await check_connection(engine)
        await require_current(engine)
        runtime = _new_runtime(settings.metrics_address)
        client = await connect_to_temporal(runtime=runtime)
        await require_search_attributes(client)
        watchdog = ShutdownWatchdog(settings.stop_timeout + STOP_MARGIN)
        worker = JobWorker(
            client, settings, catalog, engine, lambda: watchdog.begin(EXIT_UNAVAILABLE)
        )
        handle_stop_signals(watchdog, worker.stop)
        _print_ready(client, catalog.current, as_json)
        _log_inactive_patches(settings.compatible_with)
        async with contextlib.AsyncExitStack() as stack:
            if settings.metrics_address is not None:
                collecting = asyncio.create_task(worker.metrics(runtime.metric_meter).run())
                stack.callback(collecting.cancel)
            if settings.health_port is not None:
                checks: dict[str, Check] = {
                    "database": StoreMetrics(engine).check,
                    "temporal": client.service_client.check_health,
                }
                health = serve_health(settings.health_host, settings.health_port, checks)
                await stack.enter_async_context(health)
            await worker.run()
    finally:
        await engine.dispose()
    log.info("Stopped.")


def _print_ready(client: Client, catalog: Catalog, as_json: bool) -> None:
    providers = [provider.id for provider in catalog.providers()]
    event = {
        "event": "ready",
        "namespace": client.namespace,
        "taskQueue": TASK_QUEUE,
        "providers": providers,
    }
    sentence = (
        f"Serving jobs of {client.namespace} with {len(catalog.applications)} applications and the "
        f"providers {', '.join(providers) or '(none)'}."
    )
    _print_event(event, sentence, as_json)


def _log_inactive_patches(compatible_with: str | None) -> None:
    if compatible_with is not None:
        inactive = ", ".join(versioning.inactive_patches(compatible_with)) or "none"
        log.info("Patches that release %s does not have: %s.", compatible_with, inactive)


def _new_runtime(metrics_address: str | None) -> Runtime:
    """Create a runtime that serves its metrics and ours to Prometheus, if it has an address."""
    metrics = None if metrics_address is None else PrometheusConfig(bind_address=metrics_address)
    return make_runtime(metrics)


async def setup(settings: WorkerSettings, as_json: bool = False) -> None:
    """Prepare what serving needs, and print the outcome of each step. Idempotent."""
    Runtime.set_default(make_runtime())
    steps = []
    async for step in run_setup(settings):
        steps.append({"outcome": step.outcome, "what": step.what})
        if not as_json:
            sys.stdout.write(f"{step}\n")
    _print_event({"event": "set up", "steps": steps}, "Everything is ready.", as_json)


def _print_event(event: dict[str, Any], sentence: str, as_json: bool) -> None:
    sys.stdout.write((json.dumps(event) if as_json else sentence) + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] = ()) -> int:
    parser = ArgumentParser(prog="worker", description="Serve jobs, or prepare what serving needs.")
    parser.add_argument("command", nargs="?", choices=["serve", "setup"], default="serve")
    parser.add_argument("--json", action="store_true", help="print events as lines of JSON")
    chosen = parser.parse_args(arguments)
    try:
        settings = WorkerSettings.read()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    configure_logging(settings.log_level, settings.log_format)
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


if __name__ == "__main__":
    exit_process(main(sys.argv[1:]))
