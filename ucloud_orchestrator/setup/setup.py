"""Run all steps. Temporal is first: if the cluster denies a call, nothing else is changed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

from ucloud_orchestrator.catalog import ReloadingCatalog
from ucloud_orchestrator.process.worker_settings import WorkerSettings
from ucloud_orchestrator.setup.keys import make_keys
from ucloud_orchestrator.setup.namespace import prepare_namespace
from ucloud_orchestrator.setup.schedules import schedule_provider_check
from ucloud_orchestrator.setup.search_attributes import register_search_attributes
from ucloud_orchestrator.setup.steps import Step
from ucloud_orchestrator.store import check_connection, connect, upgrade
from ucloud_orchestrator.temporal.connection import connect_to_temporal


async def run_setup(settings: WorkerSettings) -> AsyncIterator[Step]:
    """Run every step, and yield it when it is done. Idempotent. Raises `SetupError`."""
    providers = [provider.id for provider in ReloadingCatalog(settings.catalog).current.providers()]
    client = await connect_to_temporal()
    retention = timedelta(days=settings.retention_days) if settings.retention_days else None
    yield await prepare_namespace(client, retention)
    for step in await register_search_attributes(client):
        yield step
    engine = connect(settings.database_url)
    try:
        await check_connection(engine, make_folder=True)
        changed = await upgrade(engine)
    finally:
        await engine.dispose()
    yield Step("changed" if changed else "there", "the tables of the database")
    for provider in providers:
        outcome = make_keys(settings.keys_dir, provider)
        yield Step(outcome, f"the key pair of the provider {provider} in {settings.keys_dir}")
        yield await schedule_provider_check(
            client, provider, timedelta(seconds=settings.provider_check_interval)
        )
