"""What a health check says."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from starlette.applications import Starlette

from ucloud_orchestrator.process import health
from ucloud_orchestrator.process.health import health_routes


async def answering() -> None:
    pass


async def hanging() -> None:
    await asyncio.Event().wait()


async def late() -> None:
    raise TimeoutError("the jobs were not looked at for 70 s")


async def test_every_check_is_told_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "TIMEOUT", 0.5)
    app = Starlette(routes=health_routes({"a": answering, "b": hanging, "c": late}))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://process"
    ) as client:
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json() == {
            "status": "not ready",
            "a": "ok",
            "b": "no answer within 0 s",
            "c": "TimeoutError: the jobs were not looked at for 70 s",
        }
        assert (await client.get("/healthz")).json() == {"status": "alive"}
