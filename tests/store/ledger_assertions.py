"""The independent check of the ledger: it balances, and only live jobs have claims."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

ACCOUNTS = ("AVAILABLE", "RESERVED", "SPENT")


async def check_ledger(engine: AsyncEngine) -> None:
    """Add up all ledger entries, and compare the sums with the other tables."""
    async with engine.connect() as connection:
        wallets = (
            await connection.execute(text("SELECT id, available, reserved, spent FROM wallets"))
        ).all()
        entries = (
            await connection.execute(
                text("SELECT wallet_id, source, target, amount FROM movements")
            )
        ).all()
        charged = (await connection.execute(text("SELECT amount FROM charges"))).scalars().all()
        reservations = (
            await connection.execute(text("SELECT wallet_id, amount FROM reservations"))
        ).all()
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
        for _, source, target, amount in (
            entry for entry in entries if entry.wallet_id == wallet.id
        ):
            sums[source] -= amount
            sums[target] += amount
        assert [sums[account] for account in ACCOUNTS] == [
            wallet.available,
            wallet.reserved,
            wallet.spent,
        ]
        assert wallet.reserved == sum(
            reservation.amount for reservation in reservations if reservation.wallet_id == wallet.id
        )
        total += sum(sums.values())
    assert total == 0
    assert sum(wallet.spent for wallet in wallets) == sum(charged)
