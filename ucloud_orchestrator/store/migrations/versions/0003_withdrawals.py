"""Admissions that were undone."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "withdrawn_jobs",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("taken_by", sa.String(255), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", "taken_by", name="pk_withdrawn_jobs"),
    )
    op.create_index("ix_withdrawn_jobs_at", "withdrawn_jobs", ["at"])


def downgrade() -> None:
    op.drop_table("withdrawn_jobs")
