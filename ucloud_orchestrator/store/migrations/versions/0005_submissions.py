"""When the provider of a live job said that it has it."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("live_jobs", sa.Column("submitted_at", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("live_jobs", "submitted_at")
