"""The tables. Every change of them is a migration in `store/migrations/versions`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Index, Integer, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Table(DeclarativeBase):
    """The base of all tables, with names for constraints that are the same on every database."""

    metadata = MetaData(naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s", "pk": "pk_%(table_name)s"})


class FinishedJob(Table):
    """A job that has ended. `document` is its `Job` as on the wire, without its updates; times are milliseconds."""

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
