"""What outlives a job's workflow, in SQL: finished jobs with their updates, and what is held and paid for live ones."""

from store.archive import Archive
from store.database import DatabaseUnusable, connect, reach
from store.figures import Figures
from store.holdings import LIVE_PAGE, Holdings, Refused
from store.products import Products
from store.schema import SchemaOutdated, require_current, upgrade
from store.wallets import Wallets

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
