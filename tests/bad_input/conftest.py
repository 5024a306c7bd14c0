"""One provider for all that is sent to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.provider.provider_process import Reports, Served, serving


@pytest.fixture(scope="session")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """It reads no more than a megabyte of a request."""
    one = Served(tmp_path_factory.mktemp("bad-input"), Reports())
    one.settings = one.settings.model_copy(update={"maximum_request_bytes": 1024 * 1024})
    async with serving(one) as running:
        yield running
