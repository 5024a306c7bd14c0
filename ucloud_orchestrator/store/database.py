"""The connection to the database: SQLite by default, PostgreSQL by its URL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

BUSY_TIMEOUT_MILLISECONDS = 5000
"""How long SQLite waits for another writer before it gives up."""
_WRITES = "ucloud_writes"
_DRIVERS = {"sqlite+aiosqlite", "postgresql+asyncpg"}


class DatabaseError(Exception):
    """The database cannot be reached, or its address is none; the text says why, without its
    password.
    """


def connect(url: str) -> AsyncEngine:
    """An engine for `sqlite+aiosqlite:///path` or `postgresql+asyncpg://...`. Nothing is opened
    yet.

    Raises `DatabaseError`.
    """
    try:
        driver = make_url(url).drivername
    except ArgumentError:
        driver = "none"
    if driver not in _DRIVERS:
        raise DatabaseError(
            "The address of the database must be sqlite+aiosqlite:///PATH or "
            "postgresql+asyncpg://USER@HOST/NAME."
        )
    is_sqlite = driver.startswith("sqlite")
    try:
        # A connection that the server closed meanwhile is replaced before it is used.
        engine = create_async_engine(url, pool_pre_ping=not is_sqlite)
    except ImportError as error:
        raise DatabaseError(
            "PostgreSQL needs the library 'asyncpg': install the extra 'postgresql'."
        ) from error
    if is_sqlite:
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


async def check_connection(engine: AsyncEngine, make_folder: bool = False) -> None:
    """Say something to the database.

    Raises `DatabaseError`; `make_folder` makes that of a file of SQLite.
    """
    if make_folder and engine.dialect.name == "sqlite" and engine.url.database:
        Path(engine.url.database).parent.mkdir(parents=True, exist_ok=True)
    try:
        async with engine.connect() as connection:
            await connection.execute(select(1))
    except Exception as error:  # each driver has errors of its own
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        address = engine.url.render_as_string(hide_password=True)
        raise DatabaseError(
            f"The database {address} cannot be used: {reason.rstrip('.')}."
        ) from error


@asynccontextmanager
async def write_transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """One transaction that will write.

    SQLite takes its lock at once: a later upgrade of a read lock may not wait.
    """
    async with engine.execution_options(**{_WRITES: True}).begin() as connection:
        yield connection


async def advisory_lock(connection: AsyncConnection, names: Iterable[str]) -> None:
    """Wait for every other transaction that does this with one of the names; the end of the
    transaction lets go.

    SQLite has one writer at a time anyway.
    """
    if connection.dialect.name == "postgresql":
        for name in sorted(names):
            await connection.execute(
                select(func.pg_advisory_xact_lock(func.hashtextextended(name, 0)))
            )


def insert_or_ignore(connection: AsyncConnection, table: type[Any]) -> Any:
    """An insert that leaves a row of the same key alone; its `rowcount` says which it was."""
    make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    return make(table).on_conflict_do_nothing()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver begins no transaction of its own
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MILLISECONDS}")
    cursor.close()
