"""Create the tables of the store."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (
    "finished_jobs",
    "job_updates",
    "live_jobs",
    "withdrawn_jobs",
    "bindings",
    "wallets",
    "movements",
    "reservations",
    "charges",
    "provider_products",
)


def upgrade() -> None:
    _create_archive()
    _create_claims()
    _create_ledger()
    _create_reservations()
    _create_products()


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)


def _create_archive() -> None:
    op.create_table(
        "finished_jobs",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("created_by", sa.String(255), nullable=False),
        sa.Column("project", sa.String(255), nullable=True),
        sa.Column("provider", sa.String(255), nullable=False),
        sa.Column("application", sa.String(511), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_finished_jobs"),
    )
    op.create_index("ix_finished_jobs_created_by_id", "finished_jobs", ["created_by", "id"])
    op.create_index("ix_finished_jobs_project_id", "finished_jobs", ["project", "id"])
    op.create_index("ix_finished_jobs_provider_id", "finished_jobs", ["provider", "id"])
    op.create_table(
        "job_updates",
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "position", name="pk_job_updates"),
    )


def _create_claims() -> None:
    op.create_table(
        "live_jobs",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("claimed_by", sa.String(255), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("unique_fingerprint", sa.String(64), nullable=True),
        sa.Column("provider", sa.String(255), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("submitted_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_live_jobs"),
        sa.UniqueConstraint("unique_fingerprint", name="uq_live_jobs_unique_fingerprint"),
    )
    op.create_index("ix_live_jobs_fingerprint", "live_jobs", ["fingerprint"])
    op.create_index("ix_live_jobs_provider", "live_jobs", ["provider"])
    op.create_table(
        "bindings",
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("resource_id", sa.String(255), nullable=False),
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("kind", "resource_id", name="pk_bindings"),
        sa.ForeignKeyConstraint(["job_id"], ["live_jobs.id"], name="fk_bindings_job_id"),
    )
    op.create_index("ix_bindings_job_id", "bindings", ["job_id"])
    op.create_table(
        "withdrawn_jobs",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("claimed_by", sa.String(255), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", "claimed_by", name="pk_withdrawn_jobs"),
    )
    op.create_index("ix_withdrawn_jobs_at", "withdrawn_jobs", ["at"])


def _create_ledger() -> None:
    op.create_table(
        "wallets",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("owner", sa.String(300), nullable=False),
        sa.Column("category", sa.String(255), nullable=False),
        sa.Column("provider", sa.String(255), nullable=False),
        sa.Column("available", sa.BigInteger(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=False),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_wallets"),
        sa.UniqueConstraint(
            "owner", "category", "provider", name="uq_wallets_owner_category_provider"
        ),
        sa.CheckConstraint(
            "available >= 0 AND reserved >= 0 AND spent >= 0", name="ck_wallets_amounts"
        ),
    )
    op.create_table(
        "movements",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("wallet_id", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("target", sa.String(16), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.String(64), nullable=True),
        sa.Column("charge_id", sa.String(255), nullable=True),
        sa.Column("note", sa.String(255), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_movements"),
        sa.ForeignKeyConstraint(["wallet_id"], ["wallets.id"], name="fk_movements_wallet_id"),
        sa.CheckConstraint("amount > 0", name="ck_movements_amount"),
    )
    op.create_index("ix_movements_wallet_id", "movements", ["wallet_id"])
    op.create_index("ix_movements_job_id", "movements", ["job_id"])


def _create_reservations() -> None:
    op.create_table(
        "reservations",
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("wallet_id", sa.Integer(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("milliseconds", sa.BigInteger(), nullable=False),
        sa.Column("price_per_unit", sa.BigInteger(), nullable=False),
        sa.Column("unit_of_price", sa.String(32), nullable=False),
        sa.Column("replicas", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", name="pk_reservations"),
        sa.ForeignKeyConstraint(["job_id"], ["live_jobs.id"], name="fk_reservations_job_id"),
        sa.ForeignKeyConstraint(["wallet_id"], ["wallets.id"], name="fk_reservations_wallet_id"),
        sa.CheckConstraint("amount >= 0", name="ck_reservations_amount"),
    )
    op.create_index("ix_reservations_wallet_id", "reservations", ["wallet_id"])
    op.create_table(
        "charges",
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("charge_id", sa.String(255), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "charge_id", name="pk_charges"),
    )


def _create_products() -> None:
    op.create_table(
        "provider_products",
        sa.Column("provider", sa.String(255), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("provider", name="pk_provider_products"),
    )
