"""The archive of finished jobs and their updates."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
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


def downgrade() -> None:
    op.drop_table("job_updates")
    op.drop_table("finished_jobs")
