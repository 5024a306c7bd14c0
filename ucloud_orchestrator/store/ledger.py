"""The ledger: transfers of credits between the accounts of a wallet, within a transaction.

A transfer is a compare-and-set of the wallet's row, and a ledger entry. So the row is at all times
the sum of its entries.
"""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ucloud_orchestrator.models.accounting import MAXIMUM_AMOUNT, Account
from ucloud_orchestrator.models.product import ProductCategory
from ucloud_orchestrator.models.workspace import Workspace
from ucloud_orchestrator.store.database import insert_or_ignore
from ucloud_orchestrator.store.errors import InsufficientBalance
from ucloud_orchestrator.store.tables import MovementRow, WalletRow

_COLUMNS = {
    Account.AVAILABLE: WalletRow.available,
    Account.RESERVED: WalletRow.reserved,
    Account.SPENT: WalletRow.spent,
}


async def find_wallet(
    connection: AsyncConnection, owner: Workspace, category: ProductCategory
) -> int | None:
    wallet: int | None = await connection.scalar(
        select(WalletRow.id).where(
            WalletRow.owner == str(owner),
            WalletRow.category == category.name,
            WalletRow.provider == category.provider,
        )
    )
    return wallet


async def open_wallet(
    connection: AsyncConnection, owner: Workspace, category: ProductCategory
) -> int:
    """Return the wallet's id; create an empty wallet if there is none."""
    row = {"owner": str(owner), "category": category.name, "provider": category.provider}
    empty = {"available": 0, "reserved": 0, "spent": 0}
    await connection.execute(insert_or_ignore(connection, WalletRow).values(row | empty))
    wallet = await find_wallet(connection, owner, category)
    assert wallet is not None
    return wallet


async def transfer(
    connection: AsyncConnection,
    wallet: int,
    amount: int,
    source: Account,
    target: Account,
    **details: Any,
) -> None:
    """Transfer an amount. `details`: the entry's `job_id`, `charge_id` and `note`.

    Raises `InsufficientBalance` if the source has less, or the target would exceed
    `MAXIMUM_AMOUNT`.
    """
    if amount == 0:
        return
    if amount > MAXIMUM_AMOUNT:
        raise InsufficientBalance(f"{amount} credits are more than any wallet can hold.")
    changes: dict[str, Any] = {}
    conditions = [WalletRow.id == wallet]
    if (debited := _COLUMNS.get(source)) is not None:
        changes[debited.key] = debited - amount
        conditions.append(debited >= amount)
    if (credited := _COLUMNS.get(target)) is not None:
        changes[credited.key] = credited + amount
        conditions.append(credited <= MAXIMUM_AMOUNT - amount)
    updated = await connection.execute(update(WalletRow).where(*conditions).values(changes))
    if not updated.rowcount:
        raise InsufficientBalance(f"{amount} credits cannot be moved from {source} to {target}.")
    entry = {"wallet_id": wallet, "source": source.value, "target": target.value, "amount": amount}
    await connection.execute(
        insert(MovementRow).values(entry | {"at": int(time.time() * 1000)} | details)
    )
