"""Bringing a database to the tables that this release expects."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from ucloud_orchestrator.store.errors import SchemaVersionError

log = logging.getLogger(__name__)

_MIGRATIONS = Path(__file__).parent / "migrations"


def configuration() -> Config:
    """Alembic's configuration, without a file: the connection is handed over at each call."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config


async def upgrade(engine: AsyncEngine, revision: str = "head") -> bool:
    """Run the migrations up to `revision`; whether there was one to run.

    May be repeated; the tables of a newer release stay as they are.
    """
    config = configuration()
    async with engine.begin() as connection:
        before = await connection.run_sync(_revision)
        if _is_of_a_newer_release(before):
            return False
        await connection.run_sync(lambda sync: _run(config, sync, command.upgrade, revision))
        return before != await connection.run_sync(_revision)


async def downgrade(engine: AsyncEngine, revision: str = "base") -> None:
    """Run the migrations down to `revision`."""
    config = configuration()
    async with engine.begin() as connection:
        await connection.run_sync(lambda sync: _run(config, sync, command.downgrade, revision))


async def require_current(engine: AsyncEngine) -> None:
    """Raise `SchemaVersionError` unless every migration of this release has been run.

    Tables of a newer release will do: migrations only add what the release before need not know
    (docs/operators/upgrades.md).
    """
    expected = ScriptDirectory.from_config(configuration()).get_current_head()
    async with engine.connect() as connection:
        found = await connection.run_sync(_revision)
    if _is_of_a_newer_release(found):
        log.warning(
            "The database is at revision %s of a newer release; this one is made for %s.",
            found,
            expected,
        )
    elif found != expected:
        raise SchemaVersionError(
            f"The database is at revision {found or 'none'}, this release needs {expected}: "
            "run 'ucloud-orchestrator setup'."
        )


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _is_of_a_newer_release(revision: str | None) -> bool:
    known = {
        script.revision for script in ScriptDirectory.from_config(configuration()).walk_revisions()
    }
    return revision is not None and revision not in known


def _run(
    config: Config, connection: Connection, step: Callable[[Config, str], None], revision: str
) -> None:
    config.attributes["connection"] = connection
    step(config, revision)
