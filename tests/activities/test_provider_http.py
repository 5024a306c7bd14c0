"""Cancelled calls to a provider: what they raise depends on who cancelled."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.provider_http import ProviderHttp
from ucloud_orchestrator.setup import make_keys


@pytest.fixture
def http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProviderHttp:
    make_keys(tmp_path, "local")
    calls = ProviderHttp(
        "local", "http://provider", (tmp_path / "local.private.pem").read_text(), "cloud.sdu.dk"
    )

    async def leak(*_arguments: object, **_options: object) -> httpx.Response:
        raise asyncio.CancelledError("Cancelled via cancel scope by an attempt to connect")

    monkeypatch.setattr(calls._client, "request", leak)  # it comes once in many thousand calls
    return calls


async def test_a_leaked_cancel_is_a_retryable_error(
    http: ProviderHttp,
) -> None:
    with pytest.raises(ApplicationError, match="cannot be reached") as raised:
        await ActivityEnvironment().run(http.post, "/suspend")
    assert not raised.value.non_retryable


async def test_a_cancelled_activity_is_cancelled(http: ProviderHttp) -> None:
    environment = ActivityEnvironment()
    environment.cancel()
    with pytest.raises(asyncio.CancelledError):
        await environment.run(http.post, "/suspend")
