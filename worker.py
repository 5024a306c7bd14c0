"""The worker: settings in, workflows and activities onto their task queues, graceful stop.

`python -m worker` serves; `python -m worker setup` prepares the database, the keys and Temporal's search attributes.
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
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import uvloop
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
    WorkflowQueryFailedError,
)
from temporalio.common import MetricMeter
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import PollerBehaviorAutoscaling, UnsandboxedWorkflowRunner, Worker

from activities.accounting import AccountingActivities, WalletActivities
from activities.admission import AdmissionActivities
from activities.directory import DirectoryActivities
from activities.figures import Gauges, UnansweredSubmissions
from activities.monitoring import MonitoringActivities
from activities.products import OfferedProducts, ProductActivities
from activities.provider import ProviderActivities
from activities.provider_http import ProviderHttp
from activities.reconciliation import ReconciliationActivities
from activities.settlement import ArchiveActivities, SettlementActivities
from activities.verification import VerificationActivities
from catalog import Catalog, ReloadingCatalog
from models import tracing
from models.connection import connect_to_temporal
from models.encryption_keys import UnusableKeys
from models.job import Job
from models.messages import MonitorRequest
from models.names import (
    MONITOR_WORKFLOW,
    QUERY_JOB,
    SEARCH_ATTRIBUTES,
    TASK_QUEUE,
    monitor_id,
    provider_task_queue,
)
from service.health import Check, health_routes
from service.logs import LogFormat, configure
from service.serving import serving
from service.stopping import leave_at_the_latest
from store import Archive, Figures, Holdings, Products, SchemaOutdated, Wallets, connect, require_current, upgrade
from workflows import JobBatchWorkflow, JobWorkflow, ProviderMonitorWorkflow, patches
from workflows.surplus import SurplusArguments

log = logging.getLogger("worker")

STOP_MARGIN = 3.0
"""Seconds after `stop_patience` at which the process ends whatever hangs, as attempts do while the database is away."""
TO_THE_END = timedelta(hours=1)
"""How long a worker of jobs may stop. Cancelled local activities would be tried, and cancelled, again and again."""
CATALOG_INTERVAL = 5.0
"""Seconds between two looks for providers that have come into the catalog."""
PEER_PATIENCE = timedelta(seconds=5)
"""How long a job that another wants to connect to may take to answer."""


class WorkerSettings(BaseSettings):
    """The worker's settings: environment variables `UCLOUD_*`, or one TOML file named by `UCLOUD_CONFIG`."""

    model_config = SettingsConfigDict(env_prefix="UCLOUD_", extra="ignore")

    catalog: Path = Path("examples/catalog")
    database_url: str = "sqlite+aiosqlite:///.ucloud/store.sqlite"
    keys_dir: Path = Path(".ucloud/keys")
    """Holds `<provider>.private.pem` for each provider; its public half goes to the provider."""
    provider_addresses: dict[str, str] = {}
    """Addresses that take the place of those in the catalog, by the provider's id."""
    issuer: str = "cloud.sdu.dk"
    operators: list[str] = []
    """Who may grant credits, by username."""
    monitor_interval: float = Field(default=900.0, gt=0)
    """Seconds between two checks of a provider's live jobs; `setup` puts it into the schedules."""
    compatible_with: str | None = Field(default=None, pattern=r"^\d+\.\d+$")
    """A release, such as `0.3`, that runs beside this one or may come back: nothing is begun that it does not know."""
    stop_patience: float = Field(default=20.0, ge=0)
    """Seconds that calls may take to finish after SIGTERM; below the 30 s after which systemd and Kubernetes kill."""
    max_cached_workflows: int = Field(default=1000, ge=0)
    """Jobs that need no replay for their next task. With less than two, tasks may run out of time and are repeated."""
    metrics_address: str | None = None
    """Where Prometheus finds the figures, such as `127.0.0.1:9464`; without it there are none."""
    health_host: str = "127.0.0.1"
    health_port: int | None = Field(default=None, ge=0, le=65535)
    """Where `/healthz` and `/readyz` answer; without it nowhere."""
    log_level: str = "INFO"
    log_format: LogFormat = "text"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment first, then the file."""
        sources = [init_settings, env_settings]
        if file := os.environ.get("UCLOUD_CONFIG"):
            sources.append(TomlConfigSettingsSource(settings_cls, file))
        return tuple(sources)


class JobWorker:
    """All pollers of one process: one for jobs, and one for each provider, so that a slow one holds up nobody else."""

    def __init__(
        self, client: Client, settings: WorkerSettings, catalog: ReloadingCatalog, engine: AsyncEngine
    ) -> None:
        self._client = client
        self._settings = settings
        self._catalog = catalog
        self._engine = engine
        self._offered = OfferedProducts(Products(engine))
        self._submissions = UnansweredSubmissions()
        self._stop = asyncio.Event()
        self._stop_patience = timedelta(seconds=settings.stop_patience)
        self._providers: dict[str, ServedProvider] = {}

    async def run(self) -> None:
        """Serve until `stop` is called, then let what runs finish."""
        async with self._jobs_worker() as jobs:
            try:
                while not self._stop.is_set():
                    self._check_served_providers()
                    self._serve_new_providers()
                    try:
                        await asyncio.wait_for(self._stop.wait(), CATALOG_INTERVAL)
                    except TimeoutError:
                        continue
            finally:
                # All at once: one after the other they would take the patience twice.
                await asyncio.gather(jobs.shutdown(), *(served.stop() for served in self._providers.values()))

    def gauges(self, meter: MetricMeter) -> Gauges:
        """The figures that are looked up while the worker runs."""
        return Gauges(meter, self._client, Figures(self._engine), self._current_catalog, self._submissions)

    def stop(self) -> None:
        """Take no more work, finish what runs, and let `run` return."""
        self._stop.set()

    async def _find_peer(self, job_id: str) -> Job | None:
        """A job that has not left its workflow; None if there is none of this id."""
        try:
            handle = self._client.get_workflow_handle(job_id)
            return Job.model_validate(await handle.query(QUERY_JOB, result_type=dict, rpc_timeout=PEER_PATIENCE))
        except WorkflowQueryFailedError:  # another workflow than a job's
            return None
        except RPCError as error:
            if error.status in {RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT}:
                return None
            raise

    def _current_catalog(self) -> Catalog:
        return self._catalog.current

    def _jobs_worker(self) -> Worker:
        archive, holdings, wallets = Archive(self._engine), Holdings(self._engine), Wallets(self._engine)
        admission = AdmissionActivities(self._current_catalog, holdings, self._find_peer, self._offered)
        settlement, accounting = SettlementActivities(holdings, archive), AccountingActivities(wallets)
        monitoring = MonitoringActivities(self._current_catalog, holdings, self._client)
        reconciliation = ReconciliationActivities(holdings, self._client)
        directory = DirectoryActivities(self._current_catalog, holdings)
        finished, money = ArchiveActivities(archive), WalletActivities(wallets, self._settings.operators)
        return Worker(
            self._client,
            task_queue=TASK_QUEUE,
            workflows=[JobWorkflow, JobBatchWorkflow, ProviderMonitorWorkflow],
            activities=[
                admission.admit,
                admission.admit_batch,
                settlement.settle,
                settlement.withdraw,
                settlement.withdraw_batch,
                settlement.keep_updates,
                accounting.charge,
                accounting.cover,
                monitoring.find_lost_access,
                monitoring.cancel_jobs,
                reconciliation.find_abandoned,
                reconciliation.retrieve_abandoned,
                reconciliation.settle_abandoned,
                finished.retrieve,
                finished.browse,
                money.grant,
                money.browse,
                directory.memberships,
                directory.holder,
            ],
            interceptors=[SurplusArguments()],
            workflow_runner=UnsandboxedWorkflowRunner(),  # see decision 0011
            patch_activation_callback=patches.activation(self._settings.compatible_with),
            max_cached_workflows=self._settings.max_cached_workflows,
            workflow_task_poller_behavior=PollerBehaviorAutoscaling(),
            activity_task_poller_behavior=PollerBehaviorAutoscaling(),
            graceful_shutdown_timeout=TO_THE_END,
        )

    def _serve_new_providers(self) -> None:
        for provider in self._current_catalog().providers():
            if provider.id in self._providers:
                continue
            key_file = self._settings.keys_dir / f"{provider.id}.private.pem"
            address = self._settings.provider_addresses.get(provider.id, provider.address)
            try:
                http = ProviderHttp(provider.id, address, key_file.read_text(), self._settings.issuer)
            except (OSError, ValueError) as error:
                log.error("Provider %s is not served: its key %s cannot be used (%s).", provider.id, key_file, error)
                continue
            calls = ProviderActivities(self._current_catalog, http, self._offered, self._submissions)
            products = ProductActivities(provider.id, http, Products(self._engine))
            verification = VerificationActivities(provider.id, http, Holdings(self._engine), self._client)
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
                graceful_shutdown_timeout=self._stop_patience,
            )
            self._providers[provider.id] = ServedProvider(worker, http)
            log.info("Serving provider %s at %s.", provider.id, address)

    def _check_served_providers(self) -> None:
        """Raise if calls to a provider are no longer taken: only a new process takes them up again."""
        for provider_id, served in self._providers.items():
            if served.running.done():
                raise RuntimeError(f"Calls to provider {provider_id} are no longer taken: {served.running.exception()}")


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
        await require_current(engine)
        runtime = _runtime(settings.metrics_address)
        client = await connect_to_temporal(runtime=runtime)
        if missing := await missing_search_attributes(client):
            # One that is not there would stop every job that is given a value for it.
            raise RuntimeError(
                f"Temporal has no search attribute {', '.join(missing)}: run 'ucloud-orchestrator setup'."
            )
        worker = JobWorker(client, settings, catalog, engine)

        async def reach_temporal() -> None:
            await client.service_client.check_health()

        loop = asyncio.get_running_loop()

        def stop() -> None:
            leave_at_the_latest(settings.stop_patience + STOP_MARGIN)
            worker.stop()

        for stop_signal in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(stop_signal, stop)
        providers = [provider.id for provider in catalog.current.providers()]
        _say(
            {"event": "ready", "namespace": client.namespace, "taskQueue": TASK_QUEUE, "providers": providers},
            f"Serving jobs of {client.namespace} with {len(catalog.current.applications)} applications and the "
            f"providers {', '.join(providers) or '(none)'}.",
            as_json,
        )
        if settings.compatible_with is not None:
            waiting = ", ".join(patches.held_back(settings.compatible_with)) or "nothing"
            log.info("Held back, because release %s does not know it: %s.", settings.compatible_with, waiting)
        async with _observed(
            worker, runtime, settings, {"database": Figures(engine).check, "temporal": reach_temporal}
        ):
            await worker.run()
    finally:
        await engine.dispose()
    log.info("Stopped.")


def _runtime(metrics_address: str | None) -> Runtime | None:
    """A runtime of the SDK that serves its figures and ours to Prometheus, if an address is given."""
    if metrics_address is None:
        return None
    return Runtime(telemetry=TelemetryConfig(metrics=PrometheusConfig(bind_address=metrics_address)))


@contextlib.asynccontextmanager
async def _observed(
    worker: JobWorker, runtime: Runtime | None, settings: WorkerSettings, checks: dict[str, Check]
) -> AsyncIterator[None]:
    """Meanwhile look up the figures and answer health checks, as far as the settings ask for that."""
    async with contextlib.AsyncExitStack() as stack:
        if runtime is not None:
            looking = asyncio.create_task(worker.gauges(runtime.metric_meter).run())
            stack.callback(looking.cancel)
        if settings.health_port is not None:
            routes = health_routes(checks)
            port = await stack.enter_async_context(serving(settings.health_host, settings.health_port, routes))
            log.info("Health checks are answered at http://%s:%d/healthz and /readyz.", settings.health_host, port)
        yield


async def setup(settings: WorkerSettings, as_json: bool = False) -> None:
    """Prepare the database, the search attributes, and a key pair and a schedule for each provider. May be repeated."""
    engine = connect(settings.database_url)
    try:
        await upgrade(engine)
    finally:
        await engine.dispose()
    providers = [provider.id for provider in ReloadingCatalog(settings.catalog).current.providers()]
    for provider in providers:
        make_keys(settings.keys_dir, provider)
    client = await connect_to_temporal()
    await register_search_attributes(client)
    for provider in providers:
        await schedule_monitor(client, provider, timedelta(seconds=settings.monitor_interval))
    _say(
        {"event": "set up", "providers": providers, "keys": str(settings.keys_dir)},
        f"The database, the keys in {settings.keys_dir}, Temporal's search attributes and schedules are ready.",
        as_json,
    )


def make_keys(folder: Path, provider: str) -> None:
    """Make `<provider>.private.pem` and `<provider>.public.pem` (RSA, 2048 bits) unless they are there."""
    private_file, public_file = folder / f"{provider}.private.pem", folder / f"{provider}.public.pem"
    if private_file.exists() and public_file.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private_bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with os.fdopen(os.open(private_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(private_bytes)
    public_file.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


async def missing_search_attributes(client: Client) -> list[str]:
    """The search attributes of jobs that the client's namespace does not have."""
    known = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=client.namespace)
    )
    return [name for name in SEARCH_ATTRIBUTES if name not in known.custom_attributes]


async def register_search_attributes(client: Client) -> None:
    """Register the search attributes of jobs in the client's namespace; those that are there stay."""
    namespace = client.namespace
    if missing := await missing_search_attributes(client):
        keyword = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
        await client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(namespace=namespace, search_attributes=dict.fromkeys(missing, keyword))
        )


async def schedule_monitor(client: Client, provider: str, interval: timedelta) -> None:
    """Have the live jobs of a provider checked at that interval, also if they were at another one before."""
    schedule = Schedule(
        action=ScheduleActionStartWorkflow(
            MONITOR_WORKFLOW,
            MonitorRequest(provider=provider),
            id=monitor_id(provider),
            task_queue=TASK_QUEUE,
            static_summary=f"Check the live jobs at {provider}",
        ),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=interval)]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP),
    )
    try:
        await client.create_schedule(monitor_id(provider), schedule)
    except ScheduleAlreadyRunningError:
        await client.get_schedule_handle(monitor_id(provider)).update(lambda _: ScheduleUpdate(schedule=schedule))


def main(arguments: Sequence[str] = ()) -> int:
    """Run the worker, or its setup; returns the exit code."""
    parser = ArgumentParser(prog="worker", description="Serve jobs, or prepare what serving needs.")
    parser.add_argument("command", nargs="?", choices=["serve", "setup"], default="serve")
    parser.add_argument("--json", action="store_true", help="say what is ready as one line of JSON")
    chosen = parser.parse_args(arguments)
    settings = WorkerSettings()
    configure(settings.log_level, settings.log_format)
    try:
        tracing.start("ucloud-worker")
        uvloop.run((setup if chosen.command == "setup" else serve)(settings, chosen.json))
    except (SchemaOutdated, RPCError, RuntimeError, OSError, UnusableKeys) as error:
        log.error("%s", error)
        return 3
    finally:
        tracing.stop()
    return 0


def _say(event: dict[str, Any], sentence: str, as_json: bool) -> None:
    sys.stdout.write((json.dumps(event) if as_json else sentence) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    code = main(sys.argv[1:])
    # The Temporal SDK may abort while the interpreter shuts down (sdk-python issue 300), so it never gets there.
    sys.stdout.flush()
    logging.shutdown()
    os._exit(code)
