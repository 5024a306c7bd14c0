"""What outlives a job's workflow, in SQL: finished jobs with their updates, and what is held and paid for live ones."""

from ucloud_orchestrator.store.archive import Archive
from ucloud_orchestrator.store.claims import LIVE_PAGE, Holdings, Refused
from ucloud_orchestrator.store.database import DatabaseUnusable, connect, reach
from ucloud_orchestrator.store.metrics import Figures
from ucloud_orchestrator.store.products import Products
from ucloud_orchestrator.store.schema import SchemaOutdated, require_current, upgrade
from ucloud_orchestrator.store.wallets import Wallets

__all__ = [
    "LIVE_PAGE",
    "Archive",
    "DatabaseUnusable",
    "Figures",
    "Holdings",
    "Products",
    "Refused",
    "SchemaOutdated",
    "Wallets",
    "connect",
    "reach",
    "require_current",
    "upgrade",
]
