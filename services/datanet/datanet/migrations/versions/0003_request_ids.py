"""Request ids are kept in one form, by principal, with their content and their time"""

from __future__ import annotations

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
    # From here on the rows' own ids say nothing: a snapshot's came without its content, a row's without its time.
    with op.batch_alter_table("snapshots") as batch_op:
        batch_op.drop_index("snapshots_by_request")
        batch_op.drop_column("request_id")
    for table in ("contributors", "datanets"):
        with op.batch_alter_table(table) as batch_op:
            batch_op.drop_column("request_id")


def downgrade() -> None:
    for table in ("datanets", "contributors"):
        op.add_column(table, sa.Column("request_id", sa.String(length=64), server_default="", nullable=False))
        with op.batch_alter_table(table) as batch_op:
            batch_op.alter_column("request_id", server_default=None)
    op.add_column("snapshots", sa.Column("request_id", sa.String(length=64), nullable=True))
    op.create_index("snapshots_by_request", "snapshots", ["datanet", "request_id"], unique=True)
    op.drop_index("request_ids_by_age", table_name="request_ids")
    op.drop_table("request_ids")
