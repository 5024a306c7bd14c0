"""A provider that only acknowledges: real HTTP, and a record of what it was asked."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse


class AcknowledgingProvider:
    """`calls` are (call, job id) in order; `answers[call]` are the statuses to give before it acknowledges again."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.items: list[dict[str, Any]] = []
        self.answers: dict[str, list[int]] = defaultdict(list)
        self.open: dict[str, asyncio.Event] = defaultdict(_set_event)
        self.url = ""

    def calls_for(self, job_id: str) -> list[str]:
        """The calls about one job, in order."""
        return [call for call, about in self.calls if about == job_id]

    def application(self) -> FastAPI:
        """The server."""
        app = FastAPI()

        @app.post("/ucloud/local/jobs/{call:path}")
        async def answer(call: str, request: Request) -> JSONResponse:
            call = call or "create"
            item = (await request.json())["items"][0]
            job = item.get("job", item)
            self.items.append(item)
            self.calls.append((call, job["id"]))
            assert request.headers["authorization"].startswith("Bearer ")
            await self.open[call].wait()
            if self.answers[call]:
                status = self.answers[call].pop(0)
                if status >= 400:
                    return JSONResponse({"why": f"No, says {status}."}, status)
            return JSONResponse({"responses": [{"id": f"native-{job['id']}"} if call == "create" else {}]})

        return app


@asynccontextmanager
async def acknowledging_provider() -> AsyncIterator[AcknowledgingProvider]:
    """Serve one on a free port of the loopback."""
    provider = AcknowledgingProvider()
    config = uvicorn.Config(provider.application(), host="127.0.0.1", port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    provider.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield provider
    finally:
        server.should_exit = True
        await serving


def _set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event
