"""What is held for live jobs: taken in one transaction when they are admitted, given back in one
when they end.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ucloud_orchestrator.models.accounting import Account
from ucloud_orchestrator.models.claims import Claim
from ucloud_orchestrator.models.errors import ErrorCode, Finding
from ucloud_orchestrator.models.job import Job
from ucloud_orchestrator.models.price import price_of
from ucloud_orchestrator.models.workspace import Workspace
from ucloud_orchestrator.store.archive import archive
from ucloud_orchestrator.store.database import advisory_lock, insert_or_ignore, write_transaction
from ucloud_orchestrator.store.ledger import InsufficientBalance, find_wallet, transfer
from ucloud_orchestrator.store.tables import (
    ArchivedUpdate,
    Binding,
    FinishedJob,
    LiveJob,
    Reservation,
    WithdrawnJob,
)

LIVE_PAGE = 500
"""Jobs; what is found out about all of them is one Temporal message."""
WITHDRAWAL_MILLISECONDS = 7 * 24 * 3_600_000
"""How long a withdrawal is remembered; no attempt of an admission is under way for a week."""


class StoreRejected(Exception):
    """What was asked for cannot be had; nothing has changed. `findings` name every reason."""

    def __init__(self, code: ErrorCode, message: str, findings: Sequence[Finding] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.findings = list(findings)


class ClaimStore:
    """The transactions on both ends of a job. Each may be repeated without a further effect."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def claim(self, holdings: Sequence[Claim]) -> None:
        """Hold what the jobs need: for all of them or for none. Raises `Refused` with every reason.

        Locks are taken in the order of job ids, live jobs, bindings, wallets, as by all that gives
        back.
        """
        async with write_transaction(self._engine) as connection:
            await advisory_lock(connection, [holding.job_id for holding in holdings])
            findings: list[Finding] = []
            new = [holding for holding in holdings if not await _is_known(connection, holding)]
            for holding in sorted(new, key=lambda one: one.fingerprint):
                findings += await _insert_claim(connection, holding)
            wanted = [(kind, id_, holding) for holding in new for kind, id_ in holding.bindings]
            for kind, id_, holding in sorted(wanted, key=lambda one: one[:2]):
                findings += await _bind(connection, kind, id_, holding)
            paid = [
                (
                    await find_wallet(
                        connection, Workspace.of(holding.owner), holding.price.category
                    )
                    or 0,
                    holding,
                )
                for holding in new
                if holding.price is not None
            ]
            for wallet, holding in sorted(paid, key=lambda one: one[0]):
                findings += await _reserve(connection, wallet, holding)
            if not findings:  # else they are the reasons, and were when it was withdrawn
                findings = [
                    finding for holding in new for finding in await _withdrawn(connection, holding)
                ]
            if findings:
                raise StoreRejected(
                    findings[0].code, " ".join(finding.message for finding in findings), findings
                )

    async def find_claim(self, job_id: str, claimed_by: str) -> Claim | None:
        """What that workflow has taken for a live job; None if it has not."""
        statement = select(LiveJob.document).where(
            LiveJob.id == job_id, LiveJob.taken_by == claimed_by
        )
        async with self._engine.connect() as connection:
            document = await connection.scalar(statement)
        return None if document is None else Claim.model_validate_json(document)

    async def withdraw(self, claimed_by: str, job_ids: Sequence[str]) -> None:
        """Give back all that a workflow has taken for jobs that were never accepted, and forget
        them.

        An attempt to take it that is still under way, however slow, is refused from then on.
        """
        now = int(time.time() * 1000)
        async with write_transaction(self._engine) as connection:
            await advisory_lock(connection, job_ids)
            for job_id in job_ids:
                row = {"id": job_id, "taken_by": claimed_by, "at": now}
                await connection.execute(insert_or_ignore(connection, WithdrawnJob).values(row))
            own = select(LiveJob.id).where(LiveJob.id.in_(job_ids), LiveJob.taken_by == claimed_by)
            released = list((await connection.scalars(own)).all())
            await _release(connection, released)
            await connection.execute(
                delete(ArchivedUpdate).where(ArchivedUpdate.job_id.in_(released))
            )
            await connection.execute(
                delete(WithdrawnJob).where(WithdrawnJob.at < now - WITHDRAWAL_MILLISECONDS)
            )

    async def settle(self, job: Job) -> None:
        """Give back all that is held for a job that has ended, and archive it."""
        async with write_transaction(self._engine) as connection:
            await _release(connection, [job.id])
            await archive(connection, job)

    async def mark_submitted(self, job_ids: Sequence[str]) -> None:
        """Note that their provider has answered that it has the jobs."""
        unnoted = (LiveJob.id.in_(job_ids), LiveJob.submitted_at.is_(None))
        async with write_transaction(self._engine) as connection:
            await connection.execute(
                update(LiveJob).where(*unnoted).values(submitted_at=int(time.time() * 1000))
            )

    async def submitted(self, job_ids: Sequence[str]) -> set[str]:
        """Those of the live jobs of which that was noted."""
        statement = select(LiveJob.id).where(
            LiveJob.id.in_(job_ids), LiveJob.submitted_at.is_not(None)
        )
        async with self._engine.connect() as connection:
            return set((await connection.scalars(statement)).all())

    async def holder(self, kind: str, resource_id: str) -> str | None:
        """The job that holds a public link or IP address."""
        statement = select(Binding.job_id).where(
            Binding.kind == kind, Binding.resource_id == resource_id
        )
        async with self._engine.connect() as connection:
            holder: str | None = await connection.scalar(statement)
        return holder

    async def live(
        self, provider: str, after: str | None = None, count: int = LIVE_PAGE
    ) -> list[Claim]:
        """What is held for the live jobs of a provider: a page of `count` of them, in the order of
        their ids.
        """
        statement = (
            select(LiveJob.document)
            .where(LiveJob.provider == provider)
            .order_by(LiveJob.id)
            .limit(count)
        )
        if after is not None:
            statement = statement.where(LiveJob.id > after)
        async with self._engine.connect() as connection:
            documents = await connection.scalars(statement)
        return [Claim.model_validate_json(document) for document in documents]


async def _is_known(connection: AsyncConnection, holding: Claim) -> bool:
    """Whether this is the repeat of an admission. Raises `Refused` if the job has ended."""
    if await connection.scalar(select(FinishedJob.id).where(FinishedJob.id == holding.job_id)):
        raise StoreRejected(
            ErrorCode.DUPLICATE_JOB, f"A job with the id {holding.job_id} has already ended."
        )
    claimed_by = await connection.scalar(
        select(LiveJob.taken_by).where(LiveJob.id == holding.job_id)
    )
    if claimed_by not in {None, holding.claimed_by}:
        raise StoreRejected(
            ErrorCode.DUPLICATE_JOB, f"The id {holding.job_id} is taken by another job."
        )
    return claimed_by is not None


async def _withdrawn(connection: AsyncConnection, holding: Claim) -> list[Finding]:
    same = (WithdrawnJob.id == holding.job_id, WithdrawnJob.taken_by == holding.claimed_by)
    if not await connection.scalar(select(WithdrawnJob.id).where(*same)):
        return []
    message = f"A job with the id {holding.job_id} was refused before."
    return [Finding(field="id", message=message, code=ErrorCode.DUPLICATE_JOB)]


async def _insert_claim(connection: AsyncConnection, holding: Claim) -> list[Finding]:
    row = {
        "id": holding.job_id,
        "taken_by": holding.claimed_by,
        "fingerprint": holding.fingerprint,
        "provider": holding.specification.product.provider,
        "document": holding.model_dump_json(by_alias=True, exclude_none=True),
    }
    sole = None if holding.allows_duplicates else holding.fingerprint
    entered = await connection.execute(
        insert_or_ignore(connection, LiveJob).values(row | {"sole_fingerprint": sole})
    )
    if not entered.rowcount:
        # It will be refused; but what else is wrong is to be found too, and that needs the row.
        await connection.execute(insert_or_ignore(connection, LiveJob).values(row))
    same = select(LiveJob.id).where(
        LiveJob.fingerprint == holding.fingerprint, LiveJob.id != holding.job_id
    )
    other = await connection.scalar(same.limit(1))
    if holding.allows_duplicates or other is None:
        return []
    message = (
        f"The job {other} asks for the same and has not ended; set allowDuplicateJob to run both."
    )
    return [Finding(field="allowDuplicateJob", message=message, code=ErrorCode.DUPLICATE_JOB)]


async def _bind(
    connection: AsyncConnection, kind: str, resource_id: str, holding: Claim
) -> list[Finding]:
    row = {"kind": kind, "resource_id": resource_id, "job_id": holding.job_id}
    bound = await connection.execute(insert_or_ignore(connection, Binding).values(row))
    if bound.rowcount:
        return []
    holder = await connection.scalar(
        select(Binding.job_id).where(Binding.kind == kind, Binding.resource_id == resource_id)
    )
    name = {"ingress": "public link", "network": "public IP address"}[kind]
    message = f"The {name} {resource_id} is in use by the job {holder}."
    return [
        Finding(
            field=holding.field_of(kind, resource_id),
            message=message,
            code=ErrorCode.RESOURCE_IN_USE,
        )
    ]


async def _reserve(connection: AsyncConnection, wallet: int, holding: Claim) -> list[Finding]:
    owner, price = Workspace.of(holding.owner), holding.price
    assert price is not None
    amount = price_of(price.price_per_unit, price.unit_of_price, price.milliseconds, price.replicas)
    category = f"{price.category.name}@{price.category.provider}"
    if not wallet:
        message = (
            f"The {owner} has no wallet for {category}, but the job may cost {amount} credits."
        )
        return [Finding(field="product", message=message, code=ErrorCode.INSUFFICIENT_FUNDS)]
    try:
        await transfer(
            connection, wallet, amount, Account.AVAILABLE, Account.RESERVED, job_id=holding.job_id
        )
    except InsufficientBalance:
        message = (
            f"The wallet of the {owner} for {category} does not cover the {amount} credits "
            "of the whole time."
        )
        return [Finding(field="timeAllocation", message=message, code=ErrorCode.INSUFFICIENT_FUNDS)]
    row = {
        "job_id": holding.job_id,
        "wallet_id": wallet,
        "amount": amount,
        "covered": price.milliseconds,
        "price_per_unit": price.price_per_unit,
        "unit_of_price": price.unit_of_price.value,
        "replicas": price.replicas,
    }
    await connection.execute(insert_or_ignore(connection, Reservation).values(row))
    return []


async def _release(connection: AsyncConnection, job_ids: Sequence[str]) -> None:
    # The row of a live job is its lock: no charge can come in between.
    live = select(LiveJob.id).where(LiveJob.id.in_(job_ids)).order_by(LiveJob.id).with_for_update()
    await connection.execute(live)
    await connection.execute(delete(Binding).where(Binding.job_id.in_(job_ids)))
    held = (
        select(Reservation.__table__)
        .where(Reservation.job_id.in_(job_ids))
        .order_by(Reservation.wallet_id)
    )
    for row in (await connection.execute(held)).all():
        about = {"job_id": row.job_id, "note": "not used"}
        await transfer(
            connection, row.wallet_id, row.amount, Account.RESERVED, Account.AVAILABLE, **about
        )
    await connection.execute(delete(Reservation).where(Reservation.job_id.in_(job_ids)))
    await connection.execute(delete(LiveJob).where(LiveJob.id.in_(job_ids)))
