"""Times say what happened: a version was published, an index was requested"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.alter_column("model_versions", "told", new_column_name="published_at")
    op.alter_column("indexes", "wanted", new_column_name="requested_at")


def downgrade() -> None:
    op.alter_column("indexes", "requested_at", new_column_name="wanted")
    op.alter_column("model_versions", "published_at", new_column_name="told")
