"""A provider for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.provider.provider_process import Reports, Served, serving


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(Served(tmp_path, Reports())) as served:
        yield served
