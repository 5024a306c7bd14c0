"""Create the tables of the provider."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = ("jobs", "tombstones", "reports", "meters", "meter_pauses", "due_charges")


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("desired", sa.String(), nullable=False),
        sa.Column("phase", sa.String(), nullable=False),
        sa.Column("failure", sa.Text(), nullable=True),
    )
    op.create_index("ix_jobs_phase", "jobs", ["phase"])
    op.create_table("tombstones", sa.Column("id", sa.String(), primary_key=True))
    op.create_table(
        "meters",
        sa.Column("job_id", sa.String(), primary_key=True),
        sa.Column("started_at", sa.Integer(), nullable=False),
        sa.Column("charged", sa.Integer(), nullable=False),
    )
    op.create_table(
        "meter_pauses",
        sa.Column("job_id", sa.String(), primary_key=True),
        sa.Column("used", sa.Integer(), nullable=False),
    )
    for outbox in ("reports", "due_charges"):
        op.create_table(
            outbox,
            sa.Column("number", sa.Integer(), primary_key=True, autoincrement=True),
            sa.Column("job_id", sa.String(), nullable=False),
            sa.Column("document", sa.Text(), nullable=False),
        )
        op.create_index(f"ix_{outbox}_job_id", outbox, ["job_id"])


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table)
