"""Contributors are found by the folded form of their names, and by payout address"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from datanet.store.contributors import folded

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_COLUMNS = ("principal_folded", "display_name_folded")
_INDEXES = {
    "contributors_by_folded_principal": "principal_folded",
    "contributors_by_folded_display_name": "display_name_folded",
    "contributors_by_payout_address": "payout_address",
}


def upgrade() -> None:
    for column in _COLUMNS:
        op.add_column("contributors", sa.Column(column, sa.String(71), server_default="", nullable=False))
    table = sa.table(
        "contributors",
        *(sa.column(name) for name in ("datanet", "id", "principal", "display_name", *_COLUMNS)),
    )
    connection = op.get_bind()
    rows = connection.execute(
        sa.select(table.c.datanet, table.c.id, table.c.principal, table.c.display_name)
    ).all()
    if rows:
        statement = (
            table.update()
            .where(table.c.datanet == sa.bindparam("of_datanet"), table.c.id == sa.bindparam("of_id"))
            .values(
                principal_folded=sa.bindparam("new_principal"),
                display_name_folded=sa.bindparam("new_display_name"),
            )
        )
        connection.execute(
            statement,
            [
                {
                    "of_datanet": row.datanet,
                    "of_id": row.id,
                    "new_principal": folded(row.principal),
                    "new_display_name": folded(row.display_name),
                }
                for row in rows
            ],
        )
    with op.batch_alter_table("contributors") as batch_op:
        for column in _COLUMNS:
            batch_op.alter_column(column, server_default=None)
    for name, column in _INDEXES.items():
        op.create_index(name, "contributors", ["datanet", column], unique=False)


def downgrade() -> None:
    for name in _INDEXES:
        op.drop_index(name, table_name="contributors")
    with op.batch_alter_table("contributors") as batch_op:
        for column in _COLUMNS:
            batch_op.drop_column(column)
