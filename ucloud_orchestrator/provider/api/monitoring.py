"""What a running provider tells those who watch it; nothing of it is served at the provider's
public address.
"""

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
from ucloud_orchestrator.provider.jobs.reconciler import Runner
from ucloud_orchestrator.provider.settings import ProviderSettings

log = logging.getLogger(__name__)

MAX_POLL_AGE = 60.0
"""Seconds without a look at all jobs after which the provider is not ready; a slow Slurm takes some
of them.
"""


@contextlib.asynccontextmanager
async def serve_monitoring(
    settings: ProviderSettings, ledger: JobDatabase, runner: Runner
) -> AsyncIterator[None]:
    """Meanwhile answer health checks and Prometheus, as far as the settings ask for that.

    Raises `OSError`.
    """

    async def look() -> None:
        since = time.monotonic() - runner.looked_at
        if since > MAX_POLL_AGE:
            raise TimeoutError(f"the jobs were not looked at for {since:.0f} s")

    async def metrics(_: Request) -> Response:
        return Response(
            await runner.figures.exposition(ledger), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async with contextlib.AsyncExitStack() as stack:
        if settings.health_port is not None:
            routes = health_routes({"database": ledger.check, "jobs": look})
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
            log.info("Figures are at http://%s:%d/metrics.", host, port)
        yield
