"""The store: finished jobs, the claims of live ones, wallets and their ledger, in SQL.

Each public method is one transaction. What a transaction locks, in this order (PostgreSQL; SQLite
has one writer at a time):

- `ClaimStore.claim`: advisory locks on the job ids, so that attempts of one admission wait for each
  other. Unique keys of live jobs and bindings, sorted, so that two batches cannot deadlock. The
  rows of wallets, by id.
- `ClaimStore.withdraw`: advisory locks on the job ids, as above. The rows of live jobs, by id, so
  that no charge comes in between. The rows of wallets, by id.
- `ClaimStore.settle`: the row of the live job, for the same reason. The row of the wallet.
- `ClaimStore.mark_submitted`: the rows of the live jobs.
- `Wallets.charge`, `Wallets.reserve`: the row of the live job, so that the job cannot end, and its
  reservation cannot change. The row of the wallet.
- `Wallets.grant`: the row of the wallet, so that a grant counts once.
- `Products.save`: an advisory lock on the provider: two workers may replace its list.

Only `activities`, `worker.py` and `setup` import this package.
"""

from ucloud_orchestrator.store.archive import Archive
from ucloud_orchestrator.store.claims import ClaimStore
from ucloud_orchestrator.store.database import check_connection, connect
from ucloud_orchestrator.store.errors import DatabaseError, SchemaVersionError, StoreRejected
from ucloud_orchestrator.store.metrics import StoreMetrics
from ucloud_orchestrator.store.products import Products
from ucloud_orchestrator.store.schema import require_current, upgrade
from ucloud_orchestrator.store.wallets import Wallets

__all__ = [
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
