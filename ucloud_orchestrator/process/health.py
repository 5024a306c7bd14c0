"""`/healthz` and `/readyz` over HTTP: whether a process lives, and whether it can do its work
now.
"""

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
"""Seconds that one check may take."""

Check = Callable[[], Awaitable[object]]
"""Looks whether something that the process needs answers; raises if it does not."""


@contextlib.asynccontextmanager
async def serve_health(host: str, port: int, checks: Mapping[str, Check]) -> AsyncIterator[None]:
    """Serve `/healthz` and `/readyz` at an address. Raises `OSError`."""
    async with serve_http(host, port, health_routes(checks)) as port:
        log.info("Serving health checks at http://%s:%d/healthz and /readyz.", host, port)
        yield


def health_routes(checks: Mapping[str, Check]) -> list[Route]:
    """The two addresses. `/readyz` is 503 while a check fails, and names it."""

    async def alive(_: Request) -> JSONResponse:
        return JSONResponse({"status": "alive"})

    async def ready(_: Request) -> JSONResponse:
        answers = await asyncio.gather(*(_answer(check) for check in checks.values()))
        said = dict(zip(checks, answers, strict=True))
        is_ready = all(answer == "ok" for answer in answers)
        return JSONResponse(
            {"status": "ready" if is_ready else "not ready", **said}, 200 if is_ready else 503
        )

    return [Route("/healthz", alive), Route("/readyz", ready)]


async def _answer(check: Check) -> str:
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
