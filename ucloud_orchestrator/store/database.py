"""The connection to the database, and its transactions: SQLite by default, PostgreSQL by URL."""

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

from ucloud_orchestrator.store.errors import DatabaseError

BUSY_TIMEOUT = 5000
"""Milliseconds that SQLite waits for another writer before it fails."""
_WRITES = "ucloud_writes"
_DRIVERS = {"sqlite+aiosqlite", "postgresql+asyncpg"}


def connect(url: str) -> AsyncEngine:
    """Create an engine for `sqlite+aiosqlite:///PATH` or `postgresql+asyncpg://USER@HOST/NAME`.

    It opens its first connection when it is used. Raises `DatabaseError` for any other URL.
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
        # The ping replaces a connection that the server has closed.
        engine = create_async_engine(url, pool_pre_ping=not is_sqlite)
    except ImportError as error:
        raise DatabaseError(
            "PostgreSQL needs the library 'asyncpg': install the extra 'postgresql'."
        ) from error
    if is_sqlite:
        event.listen(engine.sync_engine, "connect", _configure_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


async def check_connection(engine: AsyncEngine, make_folder: bool = False) -> None:
    """Run a query. Raises `DatabaseError` if that fails.

    `make_folder`: create the folder of an SQLite file first.
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
    """Begin a transaction that writes.

    SQLite takes its write lock at the start: it cannot wait for an upgrade of a read lock.
    """
    async with engine.execution_options(**{_WRITES: True}).begin() as connection:
        yield connection


async def advisory_lock(connection: AsyncConnection, names: Iterable[str]) -> None:
    """Take transaction-scoped advisory locks on these names, in order (PostgreSQL only).

    SQLite has one writer at a time.
    """
    if connection.dialect.name == "postgresql":
        for name in sorted(names):
            await connection.execute(
                select(func.pg_advisory_xact_lock(func.hashtextextended(name, 0)))
            )


def insert_or_ignore(connection: AsyncConnection, table: type[Any]) -> Any:
    """Return an INSERT ... ON CONFLICT DO NOTHING, whose `rowcount` is 0 on a conflict."""
    make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    return make(table).on_conflict_do_nothing()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _configure_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin in _begin_sqlite, not in the driver
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT}")
    cursor.close()
