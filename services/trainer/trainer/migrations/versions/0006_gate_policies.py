"""Gate policies; runs, evaluations and versions name theirs; failed reports stand until they are lifted"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_VERSIONS = sa.table(
    "model_versions",
    sa.column("model", sa.String),
    sa.column("number", sa.Integer),
    sa.column("report_digest", sa.String),
    sa.column("verdict", sa.String),
    sa.column("newest_report", sa.JSON),
    sa.column("failed_reports", sa.JSON),
)
_OVERRIDES = sa.table(
    "promotion_overrides",
    sa.column("id", sa.String),
    sa.column("state", sa.String),
    sa.column("report_digest", sa.String),
)
_EVALUATIONS = sa.table("evaluations", sa.column("report_digest", sa.String), sa.column("verdict", sa.String))
_ADDED = {
    "training_runs": ("gate_policy", "policy_digest"),
    "evaluations": ("policy_digest", "policy_source", "verdict"),
    "model_versions": ("policy_digest", "newest_report", "failed_reports"),
}


def upgrade() -> None:
    op.create_table(
        "gate_policies",
        sa.Column("policy", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("requester", sa.String(length=256), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("loosens", sa.JSON(), nullable=False),
        sa.Column("people", sa.Integer(), nullable=False),
        sa.Column("approvals", sa.JSON(), nullable=False),
        sa.Column("refuser", sa.String(length=256), nullable=False),
        sa.Column("refuse_reason", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decide_time", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("policy", "version", name=op.f("pk_gate_policies")),
    )
    op.create_table(
        "policy_contents",
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_policy_contents")),
    )
    texts = {"gate_policy": 128, "policy_digest": 71, "policy_source": 71, "verdict": 16}
    for table, columns in _ADDED.items():
        for column in columns:
            kind = sa.String(length=texts[column]) if column in texts else sa.JSON()
            empty = {"newest_report": "{}", "failed_reports": "[]"}.get(column, "")
            op.add_column(table, sa.Column(column, kind, server_default=empty, nullable=False))
    _take_over_reports(op.get_bind())


def downgrade() -> None:
    for table, columns in _ADDED.items():
        for column in reversed(columns):
            op.drop_column(table, column)
    op.drop_table("policy_contents")
    op.drop_table("gate_policies")


def _take_over_reports(connection: Any) -> None:
    """A report of a release without policies has none: it keeps its verdict, and no longer suffices for a promotion."""
    lifted = {
        row.report_digest: row.id
        for row in connection.execute(sa.select(_OVERRIDES).where(_OVERRIDES.c.state == "approved"))
    }
    query = sa.select(_VERSIONS).where(_VERSIONS.c.report_digest != "")
    for row in connection.execute(query).all():
        newest = {"report": row.report_digest, "verdict": row.verdict, "policy": ""}
        override = lifted.get(row.report_digest, "")
        failed = [{"report": row.report_digest, "policy": "", "override": override}]
        changed = sa.update(_VERSIONS).where(_VERSIONS.c.model == row.model, _VERSIONS.c.number == row.number)
        connection.execute(
            changed.values(newest_report=newest, failed_reports=failed if row.verdict == "failed" else [])
        )
        of_report = sa.update(_EVALUATIONS).where(_EVALUATIONS.c.report_digest == row.report_digest)
        connection.execute(of_report.values(verdict=row.verdict))
