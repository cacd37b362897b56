"""Answers keep the trace of their event, so that a later step continues it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "answers", sa.Column("traceparent", sa.String(length=55), server_default="", nullable=False)
    )


def downgrade() -> None:
    op.drop_column("answers", "traceparent")
