"""Serve a fake provider: real HTTP, which acknowledges and records every call."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from tests.waiting import eventually


class FakeProvider:
    """A provider that acknowledges every call.

    `calls` are (call, job id) in order; `answers[call]` are statuses of the next answers.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.calls: list[tuple[str, str]] = []
        self.items: list[dict[str, Any]] = []
        self.answers: dict[str, list[int]] = defaultdict(list)
        self.sessions: list[dict[str, Any]] = []
        """The next answers to `interactiveSession`; after them, it answers with terminals."""
        self.products: Any = None
        """The answer to `retrieveProducts`; 404 until it is set."""
        self.open: dict[str, asyncio.Event] = defaultdict(_set_event)
        self._port = 0
        self._application = self._make_application()

    @property
    def url(self) -> str:
        """The address, also after `close`."""
        return f"http://127.0.0.1:{self._port}"

    def calls_for(self, job_id: str) -> list[str]:
        """Return the calls about one job, in order."""
        return [call for call, about in self.calls if about == job_id]

    async def listen(self) -> None:
        """Serve on a free port, or on the previous one."""
        config = uvicorn.Config(
            self._application, host="127.0.0.1", port=self._port, log_level="error", lifespan="off"
        )
        self._server = uvicorn.Server(config)
        self._serving = asyncio.create_task(
            self._server._serve()
        )  # without uvicorn's signal handlers
        await eventually(lambda: self._server.started)
        self._port = self._server.servers[0].sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening; connections are refused.

        Open requests are answered first: uvicorn waits for them.
        """
        for inactive_patches in self.open.values():
            inactive_patches.set()
        self._server.should_exit = True
        await self._serving

    def _make_application(self) -> FastAPI:
        app = FastAPI()

        @app.get("/ucloud/{provider}/jobs/retrieveProducts")
        async def retrieve_products() -> JSONResponse:
            return JSONResponse(self.products, 404 if self.products is None else 200)

        @app.post("/ucloud/{provider}/jobs/{call:path}")
        async def answer(provider: str, call: str, request: Request) -> JSONResponse:
            call = call or "create"
            call = call if provider == "local" else f"{provider}:{call}"
            items = (await request.json())["items"]
            jobs = [item.get("job", item) for item in items]
            self.requests.append(call)
            self.items += items
            self.calls += [(call, job["id"]) for job in jobs]
            assert request.headers["authorization"].startswith("Bearer ")
            await self.open[call].wait()
            if self.answers[call]:
                status = self.answers[call].pop(0)
                if status >= 400:
                    return JSONResponse({"why": f"No, says {status}."}, status)
            return JSONResponse(
                {
                    "responses": [
                        self._response(call, item, job)
                        for item, job in zip(items, jobs, strict=True)
                    ]
                }
            )

        return app

    def _response(self, call: str, item: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
        match call.rpartition(":")[2]:
            case "create":
                return {"id": f"native-{job['id']}"}
            case "interactiveSession":
                shell = {
                    "type": "shell",
                    "jobId": job["id"],
                    "rank": item["rank"],
                    "sessionIdentifier": "a-token",
                }
                return self.sessions.pop(0) if self.sessions else shell
            case _:
                return {}


def _set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event
