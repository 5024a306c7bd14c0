"""Aggregate queries for metrics, and for the ledger's consistency check."""

from __future__ import annotations

from collections import defaultdict

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from ucloud_orchestrator.models.accounting import Account
from ucloud_orchestrator.store.tables import FinishedJob, LiveJob, MovementRow, WalletRow


class StoreMetrics:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def check(self) -> None:
        """Read a row. Raises if the database fails: SQLite answers `SELECT 1` without its file."""
        async with self._engine.connect() as connection:
            await connection.execute(select(LiveJob.provider).limit(1))

    async def count_finished_jobs(self) -> dict[tuple[str, str], int]:
        statement = select(FinishedJob.provider, FinishedJob.state, func.count()).group_by(
            FinishedJob.provider, FinishedJob.state
        )
        async with self._engine.connect() as connection:
            return {(row[0], row[1]): row[2] for row in await connection.execute(statement)}

    async def count_live_jobs(self) -> dict[str, int]:
        statement = select(LiveJob.provider, func.count()).group_by(LiveJob.provider)
        async with self._engine.connect() as connection:
            return {row[0]: row[1] for row in await connection.execute(statement)}

    async def ledger_difference(self) -> int:
        """Return the credits by which wallets differ from the sums of their entries: 0 if sound."""
        entries = select(
            MovementRow.wallet_id,
            MovementRow.source,
            MovementRow.target,
            func.sum(MovementRow.amount),
        ).group_by(MovementRow.wallet_id, MovementRow.source, MovementRow.target)
        balances = select(WalletRow.id, WalletRow.available, WalletRow.reserved, WalletRow.spent)
        async with self._engine.connect() as connection:
            totals = (await connection.execute(entries)).all()
            wallets = (await connection.execute(balances)).all()
        sums: defaultdict[tuple[int, str], int] = defaultdict(int)
        for wallet, source, target, amount in totals:
            sums[wallet, source] -= int(amount)
            sums[wallet, target] += int(amount)
        accounts = (Account.AVAILABLE, Account.RESERVED, Account.SPENT)
        return sum(
            abs(amount - sums[row[0], account.value])
            for row in wallets
            for account, amount in zip(accounts, row[1:], strict=True)
        )
