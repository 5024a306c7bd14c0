"""Wallets: grants, charges, and reservations for more or less time."""

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
from ucloud_orchestrator.store.database import insert_or_ignore, write_transaction
from ucloud_orchestrator.store.errors import InsufficientBalance, StoreRejected
from ucloud_orchestrator.store.ledger import open_wallet, transfer
from ucloud_orchestrator.store.tables import ChargeRow, LiveJob, MovementRow, Reservation, WalletRow


class Wallets:
    """The transactions on wallets, except those of admission and settlement (`ClaimStore`)."""

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
        """Add credits to a wallet, which is created if there is none.

        A `grant_id` counts once. Raises `StoreRejected`.
        """
        if amount <= 0:
            raise StoreRejected(
                ErrorCode.VERIFICATION_FAILED, "A grant must be of one credit or more."
            )
        async with write_transaction(self._engine) as connection:
            wallet = await open_wallet(connection, owner, category)
            accounts = select(WalletRow.available, WalletRow.reserved, WalletRow.spent).where(
                WalletRow.id == wallet
            )
            amounts = (await connection.execute(accounts.with_for_update())).one()
            if grant_id is not None and await _is_granted(connection, wallet, grant_id):
                return
            # The sum, so that no later transfer between the accounts can exceed the limit.
            if sum(amounts) + amount > MAXIMUM_AMOUNT:
                raise StoreRejected(
                    ErrorCode.VERIFICATION_FAILED, "The wallet cannot hold that much."
                )
            details = {"note": note[:255] or None, "charge_id": grant_id}
            await transfer(
                connection, wallet, amount, Account.GRANTED, Account.AVAILABLE, **details
            )

    async def browse(self, owner: Workspace) -> list[Wallet]:
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

    async def list_movements(self, owner: Workspace, limit: int = 100) -> list[Movement]:
        """Return entries of an owner's ledger, newest first."""
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
        """Record each charge once: from the job's reservation first, then from the wallet.

        A charge that cannot be paid in full is not recorded, and may be repeated. Raises
        `StoreRejected` with `INVALID_STATE` if the job is not live.
        """
        insufficient, duplicates, newly_charged = [], [], 0
        async with write_transaction(self._engine) as connection:
            reservation = await _lock_reservation(connection, job_id)
            price = reservation.price_per_unit if reservation else 0
            for charge in charges:
                if await _is_charged(connection, job_id, charge.charge_id):
                    duplicates.append(charge.charge_id)
                    continue
                amount = charge.units * charge.periods * price
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
        """Change a job's reservation to the price of a whole time allocation. Idempotent.

        Raises `StoreRejected` with `INSUFFICIENT_FUNDS`, or with `INVALID_STATE` if the job is not
        live.
        """
        async with write_transaction(self._engine) as connection:
            reservation = await _lock_reservation(connection, job_id)
            if reservation is None:
                return
            # Credits that are already spent cannot be released.
            change = max(_price_change(reservation, milliseconds), -reservation.amount)
            source, target = Account.AVAILABLE, Account.RESERVED
            if change < 0:
                source, target = target, source
            try:
                await transfer(
                    connection, reservation.wallet_id, abs(change), source, target, job_id=job_id
                )
            except InsufficientBalance as error:
                raise StoreRejected(
                    ErrorCode.INSUFFICIENT_FUNDS,
                    f"The wallet does not cover the {change} credits of that time.",
                ) from error
            await connection.execute(
                update(Reservation)
                .where(Reservation.job_id == job_id)
                .values(amount=Reservation.amount + change, milliseconds=milliseconds)
            )


async def _is_granted(connection: AsyncConnection, wallet: int, grant_id: str) -> bool:
    grants = select(MovementRow.id).where(
        MovementRow.wallet_id == wallet,
        MovementRow.source == Account.GRANTED.value,
        MovementRow.charge_id == grant_id,
    )
    return (await connection.execute(grants)).first() is not None


async def _is_charged(connection: AsyncConnection, job_id: str, charge_id: str) -> bool:
    charges = select(ChargeRow.amount).where(
        ChargeRow.job_id == job_id, ChargeRow.charge_id == charge_id
    )
    return (await connection.execute(charges)).first() is not None


async def _lock_reservation(connection: AsyncConnection, job_id: str) -> Reservation | None:
    """Lock a live job, and return its reservation: None if the job is free.

    Raises `StoreRejected` if the job is not live.
    """
    live = select(LiveJob.id).where(LiveJob.id == job_id).with_for_update()
    if (await connection.execute(live)).first() is None:
        raise StoreRejected(
            ErrorCode.INVALID_STATE, f"The job {job_id} is not live; it cannot be charged."
        )
    reservations = select(Reservation.__table__).where(Reservation.job_id == job_id)
    row = (await connection.execute(reservations)).mappings().first()
    return Reservation(**row) if row is not None else None


def _price_change(reservation: Reservation, milliseconds: int) -> int:
    unit = UnitOfPrice(reservation.unit_of_price)
    before, after = (
        price_of(reservation.price_per_unit, unit, time, reservation.replicas)
        for time in (reservation.milliseconds, milliseconds)
    )
    return after - before


async def _pay(
    connection: AsyncConnection, reservation: Reservation, amount: int, charge_id: str
) -> bool:
    """Pay a charge in full, or nothing of it."""
    details = {"job_id": reservation.job_id, "charge_id": charge_id}
    wallet, reserved = reservation.wallet_id, min(amount, reservation.amount)
    try:
        # First the transfer that may fail.
        await transfer(
            connection, wallet, amount - reserved, Account.AVAILABLE, Account.SPENT, **details
        )
    except InsufficientBalance:
        return False
    await transfer(connection, wallet, reserved, Account.RESERVED, Account.SPENT, **details)
    reservation.amount -= reserved
    await connection.execute(
        update(Reservation)
        .where(Reservation.job_id == reservation.job_id)
        .values(amount=reservation.amount)
    )
    return True
