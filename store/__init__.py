"""What outlives a job's workflow, in SQL: finished jobs and their updates."""

from store.archive import Archive
from store.database import connect
from store.schema import SchemaOutdated, require_current, upgrade

__all__ = ["Archive", "SchemaOutdated", "connect", "require_current", "upgrade"]
