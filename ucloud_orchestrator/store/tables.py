"""The tables.

Every change of them is a migration in `ucloud_orchestrator/store/migrations/versions`.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Table(DeclarativeBase):
    """The base of all tables, with names for constraints that are the same on every database."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
        }
    )


class FinishedJob(Table):
    """A job that has ended.

    `document` is its `Job` as on the wire, without its updates; times are milliseconds.
    """

    __tablename__ = "finished_jobs"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    created_by: Mapped[str] = mapped_column(String(255))
    project: Mapped[str | None] = mapped_column(String(255))
    provider: Mapped[str] = mapped_column(String(255))
    application: Mapped[str] = mapped_column(String(511))
    state: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[int] = mapped_column(BigInteger)
    ended_at: Mapped[int] = mapped_column(BigInteger)
    document: Mapped[str] = mapped_column(Text)

    __table_args__ = (
        Index(None, "created_by", "id"),
        Index(None, "project", "id"),
        Index(None, "provider", "id"),
    )


class ArchivedUpdate(Table):
    """An update of a job: of a finished one, or one that a live job no longer carries."""

    __tablename__ = "job_updates"

    job_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    document: Mapped[str] = mapped_column(Text)


class LiveJob(Table):
    """A job that was admitted and has not ended: nothing is held for any other.

    `fingerprint` tells jobs that ask for the same; `sole_fingerprint` is set unless such jobs are
    allowed. `document` is the `Claim` as it was taken. `submitted_at` is when its provider answered
    that it has it (milliseconds since the epoch); it is empty until then, and for jobs from before
    there was this column.
    """

    __tablename__ = "live_jobs"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    taken_by: Mapped[str] = mapped_column(String(255))
    fingerprint: Mapped[str] = mapped_column(String(64), index=True)
    sole_fingerprint: Mapped[str | None] = mapped_column(String(64), unique=True)
    provider: Mapped[str] = mapped_column(String(255), index=True)
    document: Mapped[str] = mapped_column(Text)
    submitted_at: Mapped[int | None] = mapped_column(BigInteger)


class WithdrawnJob(Table):
    """An admission that was undone: an attempt of it that was only slow must not take anything
    afterwards.
    """

    __tablename__ = "withdrawn_jobs"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    taken_by: Mapped[str] = mapped_column(String(255), primary_key=True)
    at: Mapped[int] = mapped_column(BigInteger, index=True)


class Binding(Table):
    """A public link or IP address, and the live job that holds it."""

    __tablename__ = "bindings"

    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    resource_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("live_jobs.id"), index=True)


class WalletRow(Table):
    """A wallet: the sums of its movements, kept beside them so that one row can be checked and
    changed at once.
    """

    __tablename__ = "wallets"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    owner: Mapped[str] = mapped_column(String(300))
    category: Mapped[str] = mapped_column(String(255))
    provider: Mapped[str] = mapped_column(String(255))
    available: Mapped[int] = mapped_column(BigInteger, default=0)
    reserved: Mapped[int] = mapped_column(BigInteger, default=0)
    spent: Mapped[int] = mapped_column(BigInteger, default=0)

    __table_args__ = (
        UniqueConstraint("owner", "category", "provider"),
        CheckConstraint("available >= 0 AND reserved >= 0 AND spent >= 0", name="amounts"),
    )


class MovementRow(Table):
    """A line of the ledger. Lines are only ever added."""

    __tablename__ = "movements"

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    wallet_id: Mapped[int] = mapped_column(ForeignKey("wallets.id"), index=True)
    source: Mapped[str] = mapped_column(String(16))
    target: Mapped[str] = mapped_column(String(16))
    amount: Mapped[int] = mapped_column(BigInteger)
    at: Mapped[int] = mapped_column(BigInteger)
    job_id: Mapped[str | None] = mapped_column(String(64), index=True)
    charge_id: Mapped[str | None] = mapped_column(String(255))
    note: Mapped[str | None] = mapped_column(String(255))

    __table_args__ = (CheckConstraint("amount > 0", name="amount"),)


class Reservation(Table):
    """What is held of a wallet for a live job: `covered` milliseconds at its frozen price, less
    what was charged.
    """

    __tablename__ = "reservations"

    job_id: Mapped[str] = mapped_column(ForeignKey("live_jobs.id"), primary_key=True)
    wallet_id: Mapped[int] = mapped_column(ForeignKey("wallets.id"), index=True)
    amount: Mapped[int] = mapped_column(BigInteger)
    covered: Mapped[int] = mapped_column(BigInteger)
    price_per_unit: Mapped[int] = mapped_column(BigInteger)
    unit_of_price: Mapped[str] = mapped_column(String(32))
    replicas: Mapped[int] = mapped_column(Integer)

    __table_args__ = (CheckConstraint("amount >= 0", name="amount"),)


class ChargeRow(Table):
    """A charge that was counted. It stays after the job's end."""

    __tablename__ = "charges"

    job_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    charge_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    amount: Mapped[int] = mapped_column(BigInteger)


class ProviderProducts(Table):
    """What a provider last answered to `retrieveProducts`, and when (milliseconds since the
    epoch).
    """

    __tablename__ = "provider_products"

    provider: Mapped[str] = mapped_column(String(255), primary_key=True)
    document: Mapped[str] = mapped_column(Text)
    at: Mapped[int] = mapped_column(BigInteger)
