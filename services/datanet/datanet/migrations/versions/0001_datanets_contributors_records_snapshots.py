"""datanets, contributors, records, snapshots"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "datanets",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=256), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("licence", sa.String(length=256), nullable=False),
        sa.Column("schema", sa.JSON(), nullable=False),
        sa.Column("policy", sa.JSON(), nullable=False),
        sa.Column("treasury_address", sa.String(length=42), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_datanets")),
    )
    op.create_table(
        "inbox",
        sa.Column("consumer", sa.String(length=200), nullable=False),
        sa.Column("event_id", sa.String(length=64), nullable=False),
        sa.Column("processed_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("consumer", "event_id", name=op.f("pk_inbox")),
    )
    with op.batch_alter_table("inbox", schema=None) as batch_op:
        batch_op.create_index("inbox_by_age", ["processed_ms"], unique=False)

    op.create_table(
        "outbox",
        sa.Column(
            "seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("event_id", sa.String(length=64), nullable=False),
        sa.Column("topic", sa.String(length=249), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("headers", sa.Text(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_outbox")),
        sa.UniqueConstraint("event_id", name=op.f("uq_outbox_event_id")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "contributors",
        sa.Column("datanet", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("principal", sa.String(length=256), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("payout_address", sa.String(length=42), nullable=False),
        sa.Column("consent_licence", sa.String(length=256), nullable=False),
        sa.Column("consent_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("accepted_count", sa.BigInteger(), nullable=False),
        sa.Column("pending_count", sa.BigInteger(), nullable=False),
        sa.Column("rejected_count", sa.BigInteger(), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["datanet"], ["datanets.id"], name=op.f("fk_contributors_datanet_datanets")),
        sa.PrimaryKeyConstraint("datanet", "id", name=op.f("pk_contributors")),
    )
    with op.batch_alter_table("contributors", schema=None) as batch_op:
        batch_op.create_index("contributors_by_principal", ["datanet", "principal"], unique=True)

    op.create_table(
        "snapshots",
        sa.Column("datanet", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("root", sa.String(length=71), nullable=False),
        sa.Column("manifest_digest", sa.String(length=71), nullable=False),
        sa.Column("records_digest", sa.String(length=71), nullable=False),
        sa.Column("record_count", sa.BigInteger(), nullable=False),
        sa.Column("cluster_count", sa.BigInteger(), nullable=False),
        sa.Column("near_duplicate_cluster_count", sa.BigInteger(), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("seal_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(["datanet"], ["datanets.id"], name=op.f("fk_snapshots_datanet_datanets")),
        sa.PrimaryKeyConstraint("datanet", "number", name=op.f("pk_snapshots")),
    )
    with op.batch_alter_table("snapshots", schema=None) as batch_op:
        batch_op.create_index("snapshots_by_request", ["datanet", "request_id"], unique=True)

    op.create_table(
        "records",
        sa.Column(
            "seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("datanet", sa.String(length=64), nullable=False),
        sa.Column("contributor", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("rule", sa.String(length=64), nullable=False),
        sa.Column("field", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["datanet", "contributor"],
            ["contributors.datanet", "contributors.id"],
            name=op.f("fk_records_datanet_contributors"),
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_records")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("records", schema=None) as batch_op:
        batch_op.create_index("records_by_state", ["datanet", "state", "seq"], unique=False)
        batch_op.create_index("records_once_a_contributor", ["datanet", "digest", "contributor"], unique=True)
        batch_op.create_index(
            "records_one_holder",
            ["datanet", "digest"],
            unique=True,
            sqlite_where=sa.text("rule IN ('', 'review')"),
            postgresql_where=sa.text("rule IN ('', 'review')"),
        )


def downgrade() -> None:
    op.drop_table("records")
    op.drop_table("snapshots")
    op.drop_table("contributors")
    op.drop_table("outbox")
    op.drop_table("inbox")
    op.drop_table("datanets")
