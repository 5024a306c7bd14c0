"""Serve metrics and health checks over HTTP, beside the work of a process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

STOP_TIMEOUT = 1
"""Seconds for responses under way at shutdown."""


@contextlib.asynccontextmanager
async def serve_http(host: str, port: int, routes: Sequence[Route]) -> AsyncIterator[int]:
    """Serve these routes while the context is entered; yields the port. Port 0 is a free one.

    Raises `OSError`.
    """
    config = uvicorn.Config(
        Starlette(routes=routes),
        host=host,
        port=port,
        log_config=None,
        timeout_graceful_shutdown=STOP_TIMEOUT,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())  # without uvicorn's signal handlers
    while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn has no event for this
        await asyncio.sleep(0.02)
    if not server.started:
        with contextlib.suppress(SystemExit):  # uvicorn calls sys.exit
            await task
        raise OSError(f"{host}:{port} could not be opened for metrics and health checks.")
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task
