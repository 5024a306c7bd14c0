"""The independent check of the books: whatever happened, they add up and nothing is held for a job
that is not live.
"""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

ACCOUNTS = ("AVAILABLE", "RESERVED", "SPENT")


async def check_the_books(engine: AsyncEngine) -> None:
    """Add up every line of the ledger anew, and compare it with what the other tables say."""
    async with engine.connect() as connection:
        wallets = (
            await connection.execute(text("SELECT id, available, reserved, spent FROM wallets"))
        ).all()
        lines = (
            await connection.execute(
                text("SELECT wallet_id, source, target, amount FROM movements")
            )
        ).all()
        charged = (await connection.execute(text("SELECT amount FROM charges"))).scalars().all()
        held = (await connection.execute(text("SELECT wallet_id, amount FROM reservations"))).all()
        dangling = await connection.execute(
            text(
                "SELECT job_id FROM reservations WHERE job_id NOT IN (SELECT id FROM live_jobs) "
                "UNION ALL "
                "SELECT job_id FROM bindings WHERE job_id NOT IN (SELECT id FROM live_jobs)"
            )
        )
        assert dangling.all() == []
    total = 0
    for wallet in wallets:
        sums = dict.fromkeys((*ACCOUNTS, "GRANTED"), 0)
        for _, source, target, amount in (line for line in lines if line.wallet_id == wallet.id):
            sums[source] -= amount
            sums[target] += amount
        assert [sums[account] for account in ACCOUNTS] == [
            wallet.available,
            wallet.reserved,
            wallet.spent,
        ]
        assert wallet.reserved == sum(
            entry.amount for entry in held if entry.wallet_id == wallet.id
        )
        total += sum(sums.values())
    assert total == 0
    assert sum(wallet.spent for wallet in wallets) == sum(charged)
