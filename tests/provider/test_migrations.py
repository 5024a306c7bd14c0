"""The provider migrates its own database when it starts."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect

from ucloud_orchestrator.provider.errors import MigrationError
from ucloud_orchestrator.provider.jobs.database import DATABASE_FILE, MIGRATIONS, JobDatabase, Table
from ucloud_orchestrator.setup import make_keys


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / DATABASE_FILE


async def migrate(file: Path) -> None:
    database = JobDatabase(file)
    try:
        await database.open()
    finally:
        await database.close()


def execute(file: Path, statement: str) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute(statement)


async def test_migrations_go_up_and_down_and_match_the_models(file: Path) -> None:
    await migrate(file)
    database = JobDatabase(file)
    await database.open()
    async with database._engine.connect() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), Table.metadata)
        )
    assert differences == []
    await MIGRATIONS.downgrade(database._engine)
    async with database._engine.connect() as connection:
        left = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    assert left == ["alembic_version"]
    await database.close()


async def test_a_newer_schema_is_rejected(file: Path) -> None:
    await migrate(file)
    execute(file, "UPDATE alembic_version SET version_num = 'next'")
    with pytest.raises(MigrationError, match="was migrated by a newer release"):
        await migrate(file)


async def test_tables_without_a_revision_are_rejected(file: Path) -> None:
    execute(file, "CREATE TABLE jobs (id TEXT)")
    with pytest.raises(MigrationError, match="cannot be migrated to revision 0001: table jobs"):
        await migrate(file)


async def test_a_file_that_is_not_a_database_is_rejected(file: Path) -> None:
    await asyncio.to_thread(file.write_text, "a text that is not a database" * 100)
    with pytest.raises(MigrationError, match="file is not a database"):
        await migrate(file)


def test_the_process_ends_with_one_sentence(tmp_path: Path, file: Path) -> None:
    asyncio.run(migrate(file))
    execute(file, "UPDATE alembic_version SET version_num = 'next'")
    make_keys(tmp_path / "keys", "local")
    settings = {
        "UCLOUD_PROVIDER_DATA_DIR": str(tmp_path),
        "UCLOUD_PROVIDER_PUBLIC_KEY_FILE": str(tmp_path / "keys" / "local.public.pem"),
        "UCLOUD_PROVIDER_LOG_FORMAT": "text",
    }
    ended = subprocess.run(
        [sys.executable, "-m", "ucloud_orchestrator.provider"],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2, ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert f"The provider's database {file} was migrated by a newer release" in ended.stderr
