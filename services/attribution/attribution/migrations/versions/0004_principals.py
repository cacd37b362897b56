"""Answers know who asked, so that their attributions are shown to no one else"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op
from openledger.inference.v1.inference_pb2 import InferenceCompleted

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("answers", sa.Column("principal", sa.String(length=256), server_default="", nullable=False))
    op.create_index("answers_by_principal", "answers", ["principal", "id"], unique=False)
    connection = op.get_bind()
    answers = sa.table(
        "answers", sa.column("id"), sa.column("record"), sa.column("event"), sa.column("principal")
    )
    for row in connection.execute(sa.select(answers.c.id, answers.c.record, answers.c.event)).all():
        asked = InferenceCompleted.FromString(row.event).principal
        principal = json.loads(row.record)["principal"] if row.record else asked
        connection.execute(answers.update().where(answers.c.id == row.id).values(principal=principal))


def downgrade() -> None:
    op.drop_index("answers_by_principal", table_name="answers")
    op.drop_column("answers", "principal")
