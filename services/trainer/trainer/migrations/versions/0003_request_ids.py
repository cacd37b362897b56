"""Request ids are kept in one form, by principal, with their content and their time"""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
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
    now_ms = str(time.time_ns() // 1_000_000)
    op.execute(
        "INSERT INTO request_ids (principal, method, request_id, fingerprint, resource, created_ms)"
        f" SELECT principal, method, request_id, fingerprint, resource, {now_ms} FROM requests"
    )
    op.drop_table("requests")


def downgrade() -> None:
    op.create_table(
        "requests",
        sa.Column("principal", sa.String(length=256), nullable=False),
        sa.Column("method", sa.String(length=64), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("fingerprint", sa.String(length=71), nullable=False),
        sa.Column("resource", sa.String(length=160), nullable=False),
        sa.PrimaryKeyConstraint("principal", "method", "request_id", name=op.f("pk_requests")),
    )
    op.execute(
        "INSERT INTO requests (principal, method, request_id, fingerprint, resource)"
        " SELECT principal, method, request_id, fingerprint, resource FROM request_ids"
    )
    op.drop_index("request_ids_by_age", table_name="request_ids")
    op.drop_table("request_ids")
