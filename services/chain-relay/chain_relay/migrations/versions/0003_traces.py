"""Answers and batches store their trace, for the step that continues it later."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "scored_answer", sa.Column("traceparent", sa.String(length=55), server_default="", nullable=False)
    )
    op.add_column("batch", sa.Column("traceparent", sa.String(length=55), server_default="", nullable=False))


def downgrade() -> None:
    op.drop_column("batch", "traceparent")
    op.drop_column("scored_answer", "traceparent")
