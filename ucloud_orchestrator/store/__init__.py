"""What outlives a job's workflow, in SQL: finished jobs with their updates, and what is held and
paid for live ones.
"""

from ucloud_orchestrator.store.archive import Archive
from ucloud_orchestrator.store.claims import LIVE_PAGE, ClaimStore, StoreRejected
from ucloud_orchestrator.store.database import DatabaseError, check_connection, connect
from ucloud_orchestrator.store.metrics import StoreMetrics
from ucloud_orchestrator.store.products import Products
from ucloud_orchestrator.store.schema import SchemaVersionError, require_current, upgrade
from ucloud_orchestrator.store.wallets import Wallets

__all__ = [
    "LIVE_PAGE",
    "Archive",
    "ClaimStore",
    "DatabaseError",
    "Products",
    "SchemaVersionError",
    "StoreMetrics",
    "StoreRejected",
    "Wallets",
    "check_connection",
    "connect",
    "require_current",
    "upgrade",
]
