"""The health checks of a process: `/healthz` for liveness, `/readyz` for readiness."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from ucloud_orchestrator.process.http import serve_http

log = logging.getLogger(__name__)

TIMEOUT = 5.0
"""Seconds for one check."""

Check = Callable[[], Awaitable[object]]
"""Checks a dependency of the process; raises if it is not available."""


@contextlib.asynccontextmanager
async def serve_health(host: str, port: int, checks: Mapping[str, Check]) -> AsyncIterator[None]:
    """Serve `/healthz` and `/readyz` at an address. Raises `OSError`."""
    async with serve_http(host, port, health_routes(checks)) as port:
        log.info("Serving health checks at http://%s:%d/healthz and /readyz.", host, port)
        yield


def health_routes(checks: Mapping[str, Check]) -> list[Route]:
    """Return the routes. `/readyz` is 503 while a check fails, and has the error of each."""

    async def alive(_: Request) -> JSONResponse:
        return JSONResponse({"status": "alive"})

    async def ready(_: Request) -> JSONResponse:
        results = await asyncio.gather(*(_run_check(check) for check in checks.values()))
        is_ready = all(result == "ok" for result in results)
        return JSONResponse(
            {
                "status": "ready" if is_ready else "not ready",
                **dict(zip(checks, results, strict=True)),
            },
            200 if is_ready else 503,
        )

    return [Route("/healthz", alive), Route("/readyz", ready)]


async def _run_check(check: Check) -> str:
    try:
        async with asyncio.timeout(TIMEOUT) as limit:
            await check()
    except Exception as error:
        return (
            f"no answer within {TIMEOUT:.0f} s"
            if limit.expired()
            else f"{type(error).__name__}: {error}"[:200]
        )
    return "ok"
