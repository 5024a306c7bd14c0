"""Wallets: grants, charges and the price of more time; each method is one transaction."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ucloud_orchestrator.models.accounting import (
    MAXIMUM_AMOUNT,
    Account,
    ChargeResult,
    Movement,
    Wallet,
)
from ucloud_orchestrator.models.errors import ErrorCode
from ucloud_orchestrator.models.price import price_of
from ucloud_orchestrator.models.product import ProductCategory, UnitOfPrice
from ucloud_orchestrator.models.provider_api import Charge
from ucloud_orchestrator.models.workspace import Workspace
from ucloud_orchestrator.store.claims import StoreRejected
from ucloud_orchestrator.store.database import insert_or_ignore, write_transaction
from ucloud_orchestrator.store.ledger import InsufficientBalance, open_wallet, transfer
from ucloud_orchestrator.store.tables import ChargeRow, LiveJob, MovementRow, Reservation, WalletRow


class Wallets:
    """Everything about money but what admission and settlement do with it."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def grant(
        self,
        owner: Workspace,
        category: ProductCategory,
        amount: int,
        note: str = "",
        grant_id: str | None = None,
    ) -> None:
        """Put credits into a wallet, which is made if there is none; a `grant_id` counts once.

        Raises `Refused`.
        """
        if amount <= 0:
            raise StoreRejected(
                ErrorCode.VERIFICATION_FAILED, "A grant must be of one credit or more."
            )
        async with write_transaction(self._engine) as connection:
            wallet = await open_wallet(connection, owner, category)
            held = select(WalletRow.available, WalletRow.reserved, WalletRow.spent).where(
                WalletRow.id == wallet
            )
            amounts = (await connection.execute(held.with_for_update())).one()
            if grant_id is not None and await _is_granted(connection, wallet, grant_id):
                return
            # All of it together, so that whatever is moved between the accounts later has its
            # place.
            if sum(amounts) + amount > MAXIMUM_AMOUNT:
                raise StoreRejected(
                    ErrorCode.VERIFICATION_FAILED, "The wallet cannot hold that much."
                )
            about = {"note": note[:255] or None, "charge_id": grant_id}
            await transfer(connection, wallet, amount, Account.GRANTED, Account.AVAILABLE, **about)

    async def browse(self, owner: Workspace) -> list[Wallet]:
        """All wallets of an owner."""
        statement = select(WalletRow.__table__).where(WalletRow.owner == str(owner))
        statement = statement.order_by(WalletRow.provider, WalletRow.category)
        async with self._engine.connect() as connection:
            rows = (await connection.execute(statement)).all()
        return [
            Wallet(
                owner=owner,
                category=ProductCategory(name=row.category, provider=row.provider),
                available=row.available,
                reserved=row.reserved,
                spent=row.spent,
            )
            for row in rows
        ]

    async def movements(self, owner: Workspace, limit: int = 100) -> list[Movement]:
        """The newest lines of an owner's ledger, newest first."""
        statement = (
            select(MovementRow.__table__, WalletRow.category, WalletRow.provider)
            .join(WalletRow, WalletRow.id == MovementRow.wallet_id)
            .where(WalletRow.owner == str(owner))
            .order_by(MovementRow.id.desc())
            .limit(limit)
        )
        async with self._engine.connect() as connection:
            rows = (await connection.execute(statement)).all()
        return [
            Movement(
                category=ProductCategory(name=row.category, provider=row.provider),
                source=Account(row.source),
                target=Account(row.target),
                amount=row.amount,
                at=row.at,
                job_id=row.job_id,
                charge_id=row.charge_id,
                note=row.note,
            )
            for row in rows
        ]

    async def charge(self, job_id: str, charges: Sequence[Charge]) -> ChargeResult:
        """Count each charge once: from what is held for the job first, then from what is left in
        the wallet.

        A charge that cannot be paid in full is not counted, and may be repeated. Raises `Refused`
        with `INVALID_STATE` if the job is not live.
        """
        insufficient, duplicates, newly_charged = [], [], 0
        async with write_transaction(self._engine) as connection:
            reservation = await _reservation(connection, job_id)
            for charge in charges:
                known = select(ChargeRow.amount).where(
                    ChargeRow.job_id == job_id, ChargeRow.charge_id == charge.charge_id
                )
                if (await connection.execute(known)).first() is not None:
                    duplicates.append(charge.charge_id)
                    continue
                amount = (
                    charge.units
                    * charge.periods
                    * (reservation.price_per_unit if reservation else 0)
                )
                if reservation is not None and not await _pay(
                    connection, reservation, amount, charge.charge_id
                ):
                    insufficient.append(charge.charge_id)
                    continue
                row = {"job_id": job_id, "charge_id": charge.charge_id, "amount": amount}
                await connection.execute(insert_or_ignore(connection, ChargeRow).values(row))
                newly_charged += amount
            billed = await connection.scalar(
                select(func.coalesce(func.sum(ChargeRow.amount), 0)).where(
                    ChargeRow.job_id == job_id
                )
            )
        return ChargeResult(
            insufficient_funds=insufficient,
            duplicate_charges=duplicates,
            credits_charged=int(billed or 0),
            newly_charged=newly_charged,
        )

    async def reserve(self, job_id: str, milliseconds: int) -> None:
        """Hold the price of a whole time allocation of that length: more than now, or less. May be
        repeated.

        Raises `Refused` with `INSUFFICIENT_FUNDS`, and then nothing has changed, or with
        `INVALID_STATE`.
        """
        async with write_transaction(self._engine) as connection:
            held = await _reservation(connection, job_id)
            if held is None:
                return
            unit = UnitOfPrice(held.unit_of_price)
            before = price_of(held.price_per_unit, unit, held.covered, held.replicas)
            after = price_of(held.price_per_unit, unit, milliseconds, held.replicas)
            # What was charged already cannot be given back.
            change = max(after - before, -held.amount)
            try:
                if change > 0:
                    await transfer(
                        connection,
                        held.wallet_id,
                        change,
                        Account.AVAILABLE,
                        Account.RESERVED,
                        job_id=job_id,
                    )
                else:
                    await transfer(
                        connection,
                        held.wallet_id,
                        -change,
                        Account.RESERVED,
                        Account.AVAILABLE,
                        job_id=job_id,
                    )
            except InsufficientBalance as error:
                raise StoreRejected(
                    ErrorCode.INSUFFICIENT_FUNDS,
                    f"The wallet does not cover the {change} credits of that time.",
                ) from error
            await connection.execute(
                update(Reservation)
                .where(Reservation.job_id == job_id)
                .values(amount=Reservation.amount + change, covered=milliseconds)
            )


async def _is_granted(connection: AsyncConnection, wallet: int, grant_id: str) -> bool:
    known = select(MovementRow.id).where(
        MovementRow.wallet_id == wallet,
        MovementRow.source == Account.GRANTED.value,
        MovementRow.charge_id == grant_id,
    )
    return (await connection.execute(known)).first() is not None


async def _reservation(connection: AsyncConnection, job_id: str) -> Reservation | None:
    """What is held for a live job, locked; None if it is free.

    Raises `Refused` if the job is not live.
    """
    live = select(LiveJob.id).where(LiveJob.id == job_id).with_for_update()
    if (await connection.execute(live)).first() is None:
        raise StoreRejected(
            ErrorCode.INVALID_STATE, f"The job {job_id} is not live; it cannot be charged."
        )
    held = select(Reservation.__table__).where(Reservation.job_id == job_id)
    row = (await connection.execute(held)).mappings().first()
    return Reservation(**row) if row is not None else None


async def _pay(
    connection: AsyncConnection, reservation: Reservation, amount: int, charge_id: str
) -> bool:
    """Pay a charge in full, or nothing of it."""
    about = {"job_id": reservation.job_id, "charge_id": charge_id}
    held = min(amount, reservation.amount)
    try:
        # First what may fail: from then on the rest is certain.
        await transfer(
            connection,
            reservation.wallet_id,
            amount - held,
            Account.AVAILABLE,
            Account.SPENT,
            **about,
        )
    except InsufficientBalance:
        return False
    await transfer(
        connection, reservation.wallet_id, held, Account.RESERVED, Account.SPENT, **about
    )
    reservation.amount -= held
    await connection.execute(
        update(Reservation)
        .where(Reservation.job_id == reservation.job_id)
        .values(amount=reservation.amount)
    )
    return True
