"""Sealing is an operation that survives its process"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_RUNS = sa.text("state = 2")


def upgrade() -> None:
    op.create_table(
        "seal_operations",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("datanet", sa.String(length=64), nullable=False),
        sa.Column("principal", sa.String(length=256), nullable=False),
        sa.Column("salt", sa.Text(), nullable=False),
        sa.Column("held_out_fraction", sa.Float(), nullable=False),
        sa.Column("control_fraction", sa.Float(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("stage", sa.String(length=16), nullable=False),
        sa.Column("done", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("eta_s", sa.Float(), nullable=False),
        sa.Column("snapshot", sa.Integer(), nullable=False),
        sa.Column("error", sa.LargeBinary(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(length=36), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("start_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("end_time", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["datanet"], ["datanets.id"], name=op.f("fk_seal_operations_datanet_datanets")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_seal_operations")),
    )
    with op.batch_alter_table("seal_operations", schema=None) as batch_op:
        batch_op.create_index("seal_operations_by_datanet", ["datanet", "id"], unique=False)
        batch_op.create_index("seal_operations_by_state", ["state", "id"], unique=False)
        batch_op.create_index(
            "seal_operations_one_runs",
            ["datanet"],
            unique=True,
            sqlite_where=_RUNS,
            postgresql_where=_RUNS,
        )
    op.add_column("snapshots", sa.Column("read_time", sa.DateTime(timezone=True), nullable=True))
    # Requests to seal made snapshots until now, and make operations from here on: an id that is repeated makes a new one.
    op.execute("DELETE FROM request_ids WHERE method = 'SealSnapshot'")


def downgrade() -> None:
    op.execute("DELETE FROM request_ids WHERE method = 'SealSnapshot'")
    with op.batch_alter_table("snapshots") as batch_op:
        batch_op.drop_column("read_time")
    op.drop_table("seal_operations")
