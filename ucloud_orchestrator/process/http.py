"""A few addresses over HTTP beside the work of a process, for those who watch it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

STOP_TIMEOUT = 1
"""Seconds that answers under way get at the end."""


@contextlib.asynccontextmanager
async def serve_http(host: str, port: int, routes: Sequence[Route]) -> AsyncIterator[int]:
    """Serve these meanwhile; gives the port, which is a free one if 0 was asked for.

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
    task = asyncio.create_task(server._serve())  # the signals are the process's own
    while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.02)
    if not server.started:
        with contextlib.suppress(SystemExit):  # uvicorn's own way to say it
            await task
        raise OSError(f"{host}:{port} could not be opened for those who watch this process.")
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task
