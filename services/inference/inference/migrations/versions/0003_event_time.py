"""The time of the newest event has the name event_time"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("model_versions") as batch:
        batch.alter_column("told", new_column_name="event_time")


def downgrade() -> None:
    with op.batch_alter_table("model_versions") as batch:
        batch.alter_column("event_time", new_column_name="told")
