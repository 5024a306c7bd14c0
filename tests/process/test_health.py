"""Health checks report each dependency."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from starlette.applications import Starlette

from ucloud_orchestrator.process import health
from ucloud_orchestrator.process.health import health_routes


async def succeed() -> None:
    pass


async def hang() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise TimeoutError("the jobs were not reconciled for 70 s")


async def test_readiness_has_the_result_of_every_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "TIMEOUT", 0.5)
    app = Starlette(routes=health_routes({"a": succeed, "b": hang, "c": fail}))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://process"
    ) as client:
        response = await client.get("/readyz")
        assert response.status_code == 503
        assert response.json() == {
            "status": "not ready",
            "a": "ok",
            "b": "no answer within 0 s",
            "c": "TimeoutError: the jobs were not reconciled for 70 s",
        }
        assert (await client.get("/healthz")).json() == {"status": "alive"}
