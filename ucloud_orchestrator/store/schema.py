"""The version of the store's tables, and the migrations to it."""

from __future__ import annotations

import logging
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from ucloud_orchestrator.process.migrations import Migrations
from ucloud_orchestrator.store.errors import SchemaVersionError

log = logging.getLogger(__name__)

MIGRATIONS = Migrations(Path(__file__).parent / "migrations")


async def upgrade(engine: AsyncEngine, revision: str = "head") -> bool:
    """Migrate up to `revision`; returns False if there was nothing to do. Idempotent.

    Tables of a newer release stay as they are.
    """
    if await MIGRATIONS.is_newer(engine):
        return False
    return await MIGRATIONS.upgrade(engine, revision)


async def require_current(engine: AsyncEngine) -> None:
    """Raise `SchemaVersionError` unless every migration of this release has been run.

    Tables of a newer release are accepted: a migration only adds what an older release can ignore
    (docs/operators/upgrades.md).
    """
    expected = MIGRATIONS.revisions()[-1]
    found = await MIGRATIONS.current(engine)
    if await MIGRATIONS.is_newer(engine):
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
