"""Names are folded without separators, and a record that a rule refused keeps no text"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from datanet.store.contributors import folded

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_REJECTED = 3


def upgrade() -> None:
    contributors = sa.table(
        "contributors",
        *map(
            sa.column,
            ("datanet", "id", "principal", "display_name", "principal_folded", "display_name_folded"),
        ),
    )
    connection = op.get_bind()
    names = (contributors.c.datanet, contributors.c.id, contributors.c.principal, contributors.c.display_name)
    for datanet, id_, principal, display_name in connection.execute(sa.select(*names)).all():
        connection.execute(
            contributors.update()
            .where(contributors.c.datanet == datanet, contributors.c.id == id_)
            .values(principal_folded=folded(principal), display_name_folded=folded(display_name))
        )
    records = sa.table("records", *map(sa.column, ("state", "rule", "content")))
    connection.execute(
        records.update()
        .where(records.c.state == _REJECTED, records.c.rule != "review")
        .values(content=sa.literal(b"", sa.LargeBinary()))
    )


def downgrade() -> None:
    """The earlier release finds fewer contributors by these forms than by its own; it reads them all the same."""
