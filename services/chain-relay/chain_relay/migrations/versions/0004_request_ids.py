"""Request ids are kept in one form, by principal, with their content and their time"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "request_ids",
        sa.Column("principal", sa.String(length=256), nullable=False),
        sa.Column("method", sa.String(length=64), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("fingerprint", sa.String(length=71), nullable=False),
        sa.Column("resource", sa.String(length=256), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("principal", "method", "request_id", name=op.f("pk_request_ids")),
    )
    op.create_index("request_ids_by_age", "request_ids", ["created_ms"], unique=False)
    # The old rows do not say whose they were: a repeat of a request from before the upgrade seals what waits then.
    op.drop_table("request")


def downgrade() -> None:
    op.create_table(
        "request",
        sa.Column("rpc", sa.String(length=64), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("made", sa.String(length=128), nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("rpc", "request_id", name=op.f("pk_request")),
    )
    op.drop_index("request_ids_by_age", table_name="request_ids")
    op.drop_table("request_ids")
