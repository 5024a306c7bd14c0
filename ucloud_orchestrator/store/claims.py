"""The claims of live jobs: made in one transaction at admission, released in one at the end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ucloud_orchestrator.models.accounting import Account, Price
from ucloud_orchestrator.models.claims import Claim
from ucloud_orchestrator.models.errors import ErrorCode, Finding
from ucloud_orchestrator.models.job import Job
from ucloud_orchestrator.models.price import price_of
from ucloud_orchestrator.models.workspace import Workspace
from ucloud_orchestrator.store.archive import archive_job
from ucloud_orchestrator.store.database import advisory_lock, insert_or_ignore, write_transaction
from ucloud_orchestrator.store.errors import InsufficientBalance, StoreRejected
from ucloud_orchestrator.store.ledger import find_wallet, transfer
from ucloud_orchestrator.store.tables import (
    ArchivedUpdate,
    Binding,
    FinishedJob,
    LiveJob,
    Reservation,
    WithdrawnJob,
)

CLAIMS_PER_PAGE = 500
"""What an activity finds out about one page becomes one Temporal message."""
TOMBSTONE_LIFETIME = 7 * 24 * 3_600_000
"""Milliseconds that a withdrawal is kept. No attempt of an admission lasts a week."""
_RESOURCE_NAMES = {"ingress": "public link", "network": "public IP address"}


class ClaimStore:
    """The transactions at both ends of a job's life. Idempotent."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def claim(self, claims: Sequence[Claim]) -> None:
        """Make these claims: all of them or none. Raises `StoreRejected` with every finding."""
        async with write_transaction(self._engine) as connection:
            await advisory_lock(connection, [claim.job_id for claim in claims])
            new = [claim for claim in claims if not await _exists(connection, claim)]
            findings = [
                *await _insert_live_jobs(connection, new),
                *await _insert_bindings(connection, new),
                *await _insert_reservations(connection, new),
            ]
            # The repeat of a rejected admission gets the same findings as its first attempt.
            if not findings:
                findings = await _find_tombstones(connection, new)
            if findings:
                message = " ".join(finding.message for finding in findings)
                raise StoreRejected(findings[0].code, message, findings)

    async def find_claim(self, job_id: str, claimed_by: str) -> Claim | None:
        statement = select(LiveJob.document).where(
            LiveJob.id == job_id, LiveJob.claimed_by == claimed_by
        )
        async with self._engine.connect() as connection:
            document = await connection.scalar(statement)
        return None if document is None else Claim.model_validate_json(document)

    async def withdraw(self, claimed_by: str, job_ids: Sequence[str]) -> None:
        """Release what a workflow has claimed for jobs that were never accepted.

        The tombstones reject an attempt of the same admission that is still under way.
        """
        now = int(time.time() * 1000)
        async with write_transaction(self._engine) as connection:
            await advisory_lock(connection, job_ids)
            for job_id in job_ids:
                row = {"id": job_id, "claimed_by": claimed_by, "at": now}
                await connection.execute(insert_or_ignore(connection, WithdrawnJob).values(row))
            own = select(LiveJob.id).where(
                LiveJob.id.in_(job_ids), LiveJob.claimed_by == claimed_by
            )
            released = list((await connection.scalars(own)).all())
            await _release(connection, released)
            await connection.execute(
                delete(ArchivedUpdate).where(ArchivedUpdate.job_id.in_(released))
            )
            await connection.execute(
                delete(WithdrawnJob).where(WithdrawnJob.at < now - TOMBSTONE_LIFETIME)
            )

    async def settle(self, job: Job) -> None:
        async with write_transaction(self._engine) as connection:
            await _release(connection, [job.id])
            await archive_job(connection, job)

    async def mark_submitted(self, job_ids: Sequence[str]) -> None:
        """Record that the provider has acknowledged these jobs. The first time stays."""
        unmarked = (LiveJob.id.in_(job_ids), LiveJob.submitted_at.is_(None))
        async with write_transaction(self._engine) as connection:
            await connection.execute(
                update(LiveJob).where(*unmarked).values(submitted_at=int(time.time() * 1000))
            )

    async def find_submitted(self, job_ids: Sequence[str]) -> set[str]:
        """Return those of the live jobs that their provider has acknowledged."""
        statement = select(LiveJob.id).where(
            LiveJob.id.in_(job_ids), LiveJob.submitted_at.is_not(None)
        )
        async with self._engine.connect() as connection:
            return set((await connection.scalars(statement)).all())

    async def find_holder(self, kind: str, resource_id: str) -> str | None:
        """Return the id of the job that has claimed a public link or IP address."""
        async with self._engine.connect() as connection:
            return await _find_holder(connection, kind, resource_id)

    async def list_claims(
        self, provider: str, after: str | None = None, limit: int = CLAIMS_PER_PAGE
    ) -> tuple[list[Claim], str | None]:
        """Return a page of a provider's claims by job id, and the `after` of the next page."""
        statement = (
            select(LiveJob.document)
            .where(LiveJob.provider == provider)
            .order_by(LiveJob.id)
            .limit(limit)
        )
        if after is not None:
            statement = statement.where(LiveJob.id > after)
        async with self._engine.connect() as connection:
            documents = await connection.scalars(statement)
        claims = [Claim.model_validate_json(document) for document in documents]
        return claims, claims[-1].job_id if len(claims) == limit else None


async def _exists(connection: AsyncConnection, claim: Claim) -> bool:
    """Return whether this repeats an admission.

    Raises `StoreRejected` if the id belongs to a job that has ended, or to another one.
    """
    if await connection.scalar(select(FinishedJob.id).where(FinishedJob.id == claim.job_id)):
        raise StoreRejected(
            ErrorCode.DUPLICATE_JOB, f"A job with the id {claim.job_id} has already ended."
        )
    claimed_by = await connection.scalar(
        select(LiveJob.claimed_by).where(LiveJob.id == claim.job_id)
    )
    if claimed_by not in {None, claim.claimed_by}:
        raise StoreRejected(
            ErrorCode.DUPLICATE_JOB, f"The id {claim.job_id} is taken by another job."
        )
    return claimed_by is not None


async def _find_tombstones(connection: AsyncConnection, claims: Iterable[Claim]) -> list[Finding]:
    findings = []
    for claim in claims:
        same = (WithdrawnJob.id == claim.job_id, WithdrawnJob.claimed_by == claim.claimed_by)
        if await connection.scalar(select(WithdrawnJob.id).where(*same)):
            message = f"A job with the id {claim.job_id} was refused before."
            findings.append(Finding(field="id", message=message, code=ErrorCode.DUPLICATE_JOB))
    return findings


async def _insert_live_jobs(connection: AsyncConnection, claims: Iterable[Claim]) -> list[Finding]:
    findings = []
    for claim in sorted(claims, key=lambda claim: claim.fingerprint):
        row = {
            "id": claim.job_id,
            "claimed_by": claim.claimed_by,
            "fingerprint": claim.fingerprint,
            "provider": claim.specification.product.provider,
            "document": claim.model_dump_json(by_alias=True, exclude_none=True),
        }
        unique = None if claim.allows_duplicates else claim.fingerprint
        insert = insert_or_ignore(connection, LiveJob)
        inserted = await connection.execute(insert.values(row | {"unique_fingerprint": unique}))
        if not inserted.rowcount:
            # A duplicate: it is rejected, but further findings need its row.
            await connection.execute(insert.values(row))
        same = (LiveJob.fingerprint == claim.fingerprint, LiveJob.id != claim.job_id)
        other = await connection.scalar(select(LiveJob.id).where(*same).limit(1))
        if other is not None and not claim.allows_duplicates:
            findings.append(_duplicate(other))
    return findings


def _duplicate(job_id: str) -> Finding:
    message = (
        f"The job {job_id} asks for the same and has not ended; set allowDuplicateJob to run both."
    )
    return Finding(field="allowDuplicateJob", message=message, code=ErrorCode.DUPLICATE_JOB)


async def _insert_bindings(connection: AsyncConnection, claims: Iterable[Claim]) -> list[Finding]:
    findings = []
    bindings = [(kind, id_, claim) for claim in claims for kind, id_ in claim.bindings]
    for kind, id_, claim in sorted(bindings, key=lambda binding: binding[:2]):
        row = {"kind": kind, "resource_id": id_, "job_id": claim.job_id}
        inserted = await connection.execute(insert_or_ignore(connection, Binding).values(row))
        if inserted.rowcount:
            continue
        holder = await _find_holder(connection, kind, id_)
        message = f"The {_RESOURCE_NAMES[kind]} {id_} is in use by the job {holder}."
        field = claim.field_of(kind, id_)
        findings.append(Finding(field=field, message=message, code=ErrorCode.RESOURCE_IN_USE))
    return findings


async def _find_holder(connection: AsyncConnection, kind: str, resource_id: str) -> str | None:
    holder: str | None = await connection.scalar(
        select(Binding.job_id).where(Binding.kind == kind, Binding.resource_id == resource_id)
    )
    return holder


async def _insert_reservations(
    connection: AsyncConnection, claims: Iterable[Claim]
) -> list[Finding]:
    priced = []
    for claim in claims:
        if claim.price is not None:
            owner = Workspace.of(claim.owner)
            wallet = await find_wallet(connection, owner, claim.price.category)
            priced.append((wallet, owner, claim.price, claim.job_id))
    findings = []
    for wallet, owner, price, job_id in sorted(priced, key=lambda entry: entry[0] or 0):
        finding = await _reserve(connection, wallet, owner, price, job_id)
        findings += [finding] if finding else []
    return findings


async def _reserve(
    connection: AsyncConnection, wallet: int | None, owner: Workspace, price: Price, job_id: str
) -> Finding | None:
    amount = price_of(price.price_per_unit, price.unit_of_price, price.milliseconds, price.replicas)
    category = f"{price.category.name}@{price.category.provider}"
    if wallet is None:
        message = (
            f"The {owner} has no wallet for {category}, but the job may cost {amount} credits."
        )
        return Finding(field="product", message=message, code=ErrorCode.INSUFFICIENT_FUNDS)
    try:
        await transfer(
            connection, wallet, amount, Account.AVAILABLE, Account.RESERVED, job_id=job_id
        )
    except InsufficientBalance:
        message = (
            f"The wallet of the {owner} for {category} does not cover the {amount} credits "
            "of the whole time."
        )
        return Finding(field="timeAllocation", message=message, code=ErrorCode.INSUFFICIENT_FUNDS)
    row = {
        "job_id": job_id,
        "wallet_id": wallet,
        "amount": amount,
        "milliseconds": price.milliseconds,
        "price_per_unit": price.price_per_unit,
        "unit_of_price": price.unit_of_price.value,
        "replicas": price.replicas,
    }
    await connection.execute(insert_or_ignore(connection, Reservation).values(row))
    return None


async def _release(connection: AsyncConnection, job_ids: Sequence[str]) -> None:
    # Locks the rows of the jobs: no charge can come in between.
    live = select(LiveJob.id).where(LiveJob.id.in_(job_ids)).order_by(LiveJob.id).with_for_update()
    await connection.execute(live)
    await connection.execute(delete(Binding).where(Binding.job_id.in_(job_ids)))
    reservations = (
        select(Reservation.__table__)
        .where(Reservation.job_id.in_(job_ids))
        .order_by(Reservation.wallet_id)
    )
    for row in (await connection.execute(reservations)).all():
        details = {"job_id": row.job_id, "note": "not used"}
        await transfer(
            connection, row.wallet_id, row.amount, Account.RESERVED, Account.AVAILABLE, **details
        )
    await connection.execute(delete(Reservation).where(Reservation.job_id.in_(job_ids)))
    await connection.execute(delete(LiveJob).where(LiveJob.id.in_(job_ids)))
