"""Health checks and metrics of a running provider, never at its public address."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ucloud_orchestrator.process.health import health_routes
from ucloud_orchestrator.process.http import serve_http
from ucloud_orchestrator.process.settings import host_and_port
from ucloud_orchestrator.provider.jobs.database import JobDatabase
from ucloud_orchestrator.provider.jobs.reconciler import Reconciler
from ucloud_orchestrator.provider.settings import ProviderSettings

log = logging.getLogger(__name__)

MAX_POLL_AGE = 60.0
"""Seconds without a reconcile pass until the provider is not ready; Slurm may take some."""


@contextlib.asynccontextmanager
async def serve_monitoring(
    settings: ProviderSettings, database: JobDatabase, reconciler: Reconciler
) -> AsyncIterator[None]:
    """Serve health checks and metrics in the context, if they are set. Raises `OSError`."""

    async def check_passes() -> None:
        since = time.monotonic() - reconciler.reconciled_at
        if since > MAX_POLL_AGE:
            raise TimeoutError(f"no reconcile pass for {since:.0f} s")

    async def metrics(_: Request) -> Response:
        exposition = await reconciler.metrics.exposition(database)
        return Response(exposition, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async with contextlib.AsyncExitStack() as stack:
        if settings.health_port is not None:
            routes = health_routes({"database": database.check, "jobs": check_passes})
            port = await stack.enter_async_context(
                serve_http(settings.health_host, settings.health_port, routes)
            )
            log.info(
                "Health checks are answered at http://%s:%d/healthz and /readyz.",
                settings.health_host,
                port,
            )
        if settings.metrics_address is not None:
            host, port = host_and_port(settings.metrics_address)
            port = await stack.enter_async_context(
                serve_http(host, port, [Route("/metrics", metrics)])
            )
            log.info("Metrics are at http://%s:%d/metrics.", host, port)
        yield
