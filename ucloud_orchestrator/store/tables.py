"""The tables. A change of them needs a migration in `migrations/versions`.

A `document` is the JSON of a model. Times are in milliseconds since the epoch.
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
    """The base of all tables: constraints have the same names on every database."""

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
    """A job that has ended. `document`: its `Job` without updates."""

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
    """An update of a finished job, or an offloaded update of a live job."""

    __tablename__ = "job_updates"

    job_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    document: Mapped[str] = mapped_column(Text)


class LiveJob(Table):
    """A job that was admitted and has not ended. `document`: its `Claim`.

    Jobs with equal requests have the same `fingerprint`. `unique_fingerprint` is the same value,
    or NULL if duplicates are allowed. `submitted_at` is when the provider acknowledged the job.
    """

    __tablename__ = "live_jobs"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    claimed_by: Mapped[str] = mapped_column(String(255))
    fingerprint: Mapped[str] = mapped_column(String(64), index=True)
    unique_fingerprint: Mapped[str | None] = mapped_column(String(64), unique=True)
    provider: Mapped[str] = mapped_column(String(255), index=True)
    document: Mapped[str] = mapped_column(Text)
    submitted_at: Mapped[int | None] = mapped_column(BigInteger)


class WithdrawnJob(Table):
    """A tombstone: the admission of this job by this workflow was withdrawn."""

    __tablename__ = "withdrawn_jobs"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    claimed_by: Mapped[str] = mapped_column(String(255), primary_key=True)
    at: Mapped[int] = mapped_column(BigInteger, index=True)


class Binding(Table):
    """A public link (`ingress`) or IP address (`network`), and the live job that claims it."""

    __tablename__ = "bindings"

    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    resource_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("live_jobs.id"), index=True)


class WalletRow(Table):
    """A wallet. The accounts are the sums of its ledger entries, for compare-and-set."""

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
    """A ledger entry. Entries are never changed or deleted."""

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
    """The credits of a wallet that are reserved for a live job.

    `amount` is the price of `milliseconds`, frozen at admission, less what was charged.
    """

    __tablename__ = "reservations"

    job_id: Mapped[str] = mapped_column(ForeignKey("live_jobs.id"), primary_key=True)
    wallet_id: Mapped[int] = mapped_column(ForeignKey("wallets.id"), index=True)
    amount: Mapped[int] = mapped_column(BigInteger)
    milliseconds: Mapped[int] = mapped_column(BigInteger)
    price_per_unit: Mapped[int] = mapped_column(BigInteger)
    unit_of_price: Mapped[str] = mapped_column(String(32))
    replicas: Mapped[int] = mapped_column(Integer)

    __table_args__ = (CheckConstraint("amount >= 0", name="amount"),)


class ChargeRow(Table):
    """A recorded charge. It stays after the job's end."""

    __tablename__ = "charges"

    job_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    charge_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    amount: Mapped[int] = mapped_column(BigInteger)


class ProviderProducts(Table):
    """A provider's last answer to `retrieveProducts`, and when it came."""

    __tablename__ = "provider_products"

    provider: Mapped[str] = mapped_column(String(255), primary_key=True)
    document: Mapped[str] = mapped_column(Text)
    at: Mapped[int] = mapped_column(BigInteger)
