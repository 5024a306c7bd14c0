"""Movements of credits between the accounts of a wallet, each as a part of a transaction.

Every change of a wallet's row is a compare-and-set together with a line of the ledger, so the row
is at all times the sum of its lines.
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
from ucloud_orchestrator.store.tables import MovementRow, WalletRow

_COLUMNS = {
    Account.AVAILABLE: WalletRow.available,
    Account.RESERVED: WalletRow.reserved,
    Account.SPENT: WalletRow.spent,
}


class InsufficientBalance(Exception):
    """The account does not hold the amount; nothing was moved."""


async def find_wallet(
    connection: AsyncConnection, owner: Workspace, category: ProductCategory
) -> int | None:
    """The wallet's id, if there is one."""
    found: int | None = await connection.scalar(
        select(WalletRow.id).where(
            WalletRow.owner == str(owner),
            WalletRow.category == category.name,
            WalletRow.provider == category.provider,
        )
    )
    return found


async def open_wallet(
    connection: AsyncConnection, owner: Workspace, category: ProductCategory
) -> int:
    """The wallet's id; an empty one is made if there is none."""
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
    **about: Any,
) -> None:
    """Move an amount, and write its line; `about` are the line's `job_id`, `charge_id` and `note`.

    Raises `InsufficientBalance` if the source has less, or if the target would hold more than a
    database can keep.
    """
    if amount == 0:
        return
    if amount > MAXIMUM_AMOUNT:
        raise InsufficientBalance(f"{amount} credits are more than any wallet can hold.")
    changes: dict[str, Any] = {}
    holds = [WalletRow.id == wallet]
    if (taken_from := _COLUMNS.get(source)) is not None:
        changes[taken_from.key] = taken_from - amount
        holds.append(taken_from >= amount)
    if (put_into := _COLUMNS.get(target)) is not None:
        changes[put_into.key] = put_into + amount
        holds.append(put_into <= MAXIMUM_AMOUNT - amount)
    changed = await connection.execute(update(WalletRow).where(*holds).values(changes))
    if not changed.rowcount:
        raise InsufficientBalance(f"{amount} credits cannot be moved from {source} to {target}.")
    line = {"wallet_id": wallet, "source": source.value, "target": target.value, "amount": amount}
    await connection.execute(
        insert(MovementRow).values(line | {"at": int(time.time() * 1000)} | about)
    )
