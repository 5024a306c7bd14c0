"""What the store counts: for metrics, and for whoever wants to see that the books add up."""

from __future__ import annotations

from collections import defaultdict

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from ucloud_orchestrator.models.accounting import Account
from ucloud_orchestrator.store.tables import FinishedJob, LiveJob, MovementRow, WalletRow


class StoreMetrics:
    """Counts over all jobs and wallets."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def check(self) -> None:
        """Read anything of the database.

        Raises if it does not answer: SQLite needs more than `SELECT 1` for that.
        """
        async with self._engine.connect() as connection:
            await connection.execute(select(LiveJob.provider).limit(1))

    async def finished_jobs(self) -> dict[tuple[str, str], int]:
        """How many jobs have ended, by provider and state."""
        statement = select(FinishedJob.provider, FinishedJob.state, func.count()).group_by(
            FinishedJob.provider, FinishedJob.state
        )
        async with self._engine.connect() as connection:
            return {(row[0], row[1]): row[2] for row in await connection.execute(statement)}

    async def live_jobs(self) -> dict[str, int]:
        """How many jobs hold something, by provider."""
        statement = select(LiveJob.provider, func.count()).group_by(LiveJob.provider)
        async with self._engine.connect() as connection:
            return {row[0]: row[1] for row in await connection.execute(statement)}

    async def ledger_difference(self) -> int:
        """By how many credits the wallets differ from the sums of their ledger's lines; 0 is
        right.
        """
        lines = select(
            MovementRow.wallet_id,
            MovementRow.source,
            MovementRow.target,
            func.sum(MovementRow.amount),
        )
        lines = lines.group_by(MovementRow.wallet_id, MovementRow.source, MovementRow.target)
        held = select(WalletRow.id, WalletRow.available, WalletRow.reserved, WalletRow.spent)
        async with self._engine.connect() as connection:
            moved = (await connection.execute(lines)).all()
            wallets = (await connection.execute(held)).all()
        sums: defaultdict[tuple[int, str], int] = defaultdict(int)
        for wallet, source, target, amount in moved:
            sums[wallet, source] -= int(amount)
            sums[wallet, target] += int(amount)
        accounts = (Account.AVAILABLE, Account.RESERVED, Account.SPENT)
        return sum(
            abs(amount - sums[row[0], account.value])
            for row in wallets
            for account, amount in zip(accounts, row[1:], strict=True)
        )
