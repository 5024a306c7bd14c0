"""Alembic migrations for a database of a process: the orchestrator's store, the provider's jobs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from alembic import command, context
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

log = logging.getLogger(__name__)
# It names the kind of database at each connection.
logging.getLogger("alembic.runtime.migration").setLevel(logging.WARNING)


class Migrations:
    """The migrations in one folder, which holds `env.py` and `versions/`."""

    def __init__(self, folder: Path) -> None:
        self._config = Config()
        self._config.set_main_option("script_location", str(folder).replace("%", "%%"))
        self._scripts = ScriptDirectory.from_config(self._config)

    def revisions(self) -> list[str]:
        """Return the revisions of this release, oldest first."""
        return [script.revision for script in self._scripts.walk_revisions()][::-1]

    async def current(self, engine: AsyncEngine) -> str | None:
        """Return the revision of the database, or None before the first migration."""
        async with engine.connect() as connection:
            return await connection.run_sync(_current)

    async def is_newer(self, engine: AsyncEngine) -> bool:
        found = await self.current(engine)
        return found is not None and found not in self.revisions()

    async def upgrade(self, engine: AsyncEngine, revision: str = "head") -> bool:
        """Migrate up to `revision`, all or nothing; returns False if there was nothing to do.

        Idempotent.
        """
        before = await self.current(engine)
        await self._migrate(engine, command.upgrade, revision)
        after = await self.current(engine)
        if after != before:
            log.info("Migrated the database from revision %s to %s.", before or "none", after)
        return after != before

    async def downgrade(self, engine: AsyncEngine, revision: str = "base") -> None:
        await self._migrate(engine, command.downgrade, revision)

    async def _migrate(
        self, engine: AsyncEngine, step: Callable[[Config, str], None], revision: str
    ) -> None:
        def run(connection: Connection) -> None:
            _begin(connection)
            self._config.attributes["connection"] = connection
            step(self._config, revision)

        async with engine.begin() as connection:
            await connection.run_sync(run)


def run_environment() -> None:
    """Run the migrations on the connection that `Migrations` passes: the body of each `env.py`."""
    context.configure(connection=context.config.attributes["connection"])
    with context.begin_transaction():
        context.run_migrations()


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _begin(connection: Connection) -> None:
    """Open SQLite's transaction: its driver opens none for DDL."""
    if connection.dialect.name != "sqlite":
        return
    driver = connection.connection.driver_connection
    if driver is not None and not driver.in_transaction:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
