"""Migrations are atomic and idempotent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import inspect
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ucloud_orchestrator.process.migrations import Migrations

ENV = "from ucloud_orchestrator.process.migrations import run_environment\n\nrun_environment()\n"
FIRST = """
import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade():
    op.create_table("one", sa.Column("id", sa.Integer()))
"""
SECOND = """
import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade():
    op.create_table("two", sa.Column("id", sa.Integer()))
    op.create_table("one", sa.Column("id", sa.Integer()))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "100% of the migrations"
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text(ENV)
    (folder / "versions" / "0001.py").write_text(FIRST)
    return folder


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'database.sqlite'}")
    yield engine
    await engine.dispose()


async def tables(engine: AsyncEngine) -> set[str]:
    async with engine.connect() as connection:
        return set(await connection.run_sync(lambda sync: inspect(sync).get_table_names()))


async def test_a_migration_that_fails_changes_nothing(folder: Path, engine: AsyncEngine) -> None:
    assert await Migrations(folder).upgrade(engine)
    (folder / "versions" / "0002.py").write_text(SECOND)
    migrations = Migrations(folder)
    with pytest.raises(Exception, match="table one already exists"):
        await migrations.upgrade(engine)
    assert await migrations.current(engine) == "0001"
    assert await tables(engine) == {"one", "alembic_version"}


async def test_an_upgrade_is_idempotent(folder: Path, engine: AsyncEngine) -> None:
    migrations = Migrations(folder)
    assert await migrations.upgrade(engine)
    assert not await migrations.upgrade(engine)
    assert await migrations.current(engine) == migrations.revisions()[-1] == "0001"


async def test_an_unknown_revision_is_newer(folder: Path, engine: AsyncEngine) -> None:
    assert not await Migrations(folder).is_newer(engine)
    second = folder / "versions" / "0002.py"
    second.write_text(SECOND.replace('"one"', '"three"'))
    await Migrations(folder).upgrade(engine)
    second.unlink()
    assert await Migrations(folder).is_newer(engine)
