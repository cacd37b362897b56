"""Overrides can be refused, and every change of what a model serves has an entry in a chain of hashes"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

from identity.digest import canonical_json, sha256_bytes

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_OVERRIDES = sa.table(
    "promotion_overrides",
    sa.column("id", sa.String),
    sa.column("approver", sa.String),
    sa.column("approve_time", sa.DateTime(timezone=True)),
    sa.column("state", sa.String),
    sa.column("approvals", sa.JSON),
    sa.column("report_digest", sa.String),
    sa.column("failed_reports", sa.JSON),
)
_VERSIONS = sa.table(
    "model_versions",
    sa.column("model", sa.String),
    sa.column("number", sa.Integer),
    sa.column("report_digest", sa.String),
    sa.column("verdict", sa.String),
    sa.column("history", sa.JSON),
)
_ADDED = (
    "state",
    "approvals",
    "people",
    "failed_reports",
    "refuser",
    "refuse_reason",
    "refuse_time",
)


def upgrade() -> None:
    for column in (
        sa.Column("state", sa.String(length=16), server_default="pending", nullable=False),
        sa.Column("approvals", sa.JSON(), server_default="[]", nullable=False),
        sa.Column("people", sa.Integer(), server_default="2", nullable=False),
        sa.Column("failed_reports", sa.JSON(), server_default="[]", nullable=False),
        sa.Column("refuser", sa.String(length=256), server_default="", nullable=False),
        sa.Column("refuse_reason", sa.Text(), server_default="", nullable=False),
        sa.Column("refuse_time", sa.DateTime(timezone=True), nullable=True),
    ):
        op.add_column("promotion_overrides", column)
    op.create_index("promotion_overrides_by_version", "promotion_overrides", ["model", "version"])
    promotions = op.create_table(
        "promotions",
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("entry", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.String(length=71), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("principal", sa.String(length=256), nullable=False),
        sa.Column("report_digest", sa.String(length=71), nullable=False),
        sa.Column("policy_digest", sa.String(length=71), nullable=False),
        sa.Column("override", sa.String(length=26), nullable=False),
        sa.Column("promote_time", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("model", "number", name=op.f("pk_promotions")),
    )
    connection = op.get_bind()
    for row in connection.execute(sa.select(_OVERRIDES)).all():
        # An override may lift a report that failed; which did is no longer known, so each names the one that it was of.
        changes: dict[str, Any] = {"failed_reports": [row.report_digest]}
        if row.approver:
            given = {"principal": row.approver, "time": _aware(row.approve_time).isoformat()}
            changes |= {"state": "approved", "approvals": [given]}
        connection.execute(sa.update(_OVERRIDES).where(_OVERRIDES.c.id == row.id).values(**changes))
    rows = _taken_over(connection.execute(sa.select(_VERSIONS)).all())
    if rows:
        connection.execute(promotions.insert(), rows)


def downgrade() -> None:
    op.drop_table("promotions")
    op.drop_index("promotion_overrides_by_version", table_name="promotion_overrides")
    for column in reversed(_ADDED):
        op.drop_column("promotion_overrides", column)


def _taken_over(versions: Any) -> list[dict[str, Any]]:
    """Returns an entry for every promotion in the versions' own histories, in order of time."""
    changes = [
        (datetime.fromisoformat(change["time"]), version, change)
        for version in versions
        for change in version.history
        if change["state"] == "promoted"
    ]
    last: dict[str, dict[str, Any]] = {}
    rows = []
    for time, version, change in sorted(changes, key=lambda found: found[0]):
        before = last.get(version.model)
        entry = {
            "schema": "openledger.promotion.v1",
            "model": f"models/{version.model}",
            "number": before["number"] + 1 if before else 1,
            "previous": before["hash"] if before else "",
            "version": f"models/{version.model}/versions/{version.number}",
            "retired": f"models/{version.model}/versions/{before['version']}" if before else "",
            "kind": "taken_over",
            # The newest: which report it was at that time is not recorded.
            "report": version.report_digest,
            "verdict": version.verdict,
            "policy": "",
            "override": "",
            "back_to": 0,
            "principal": change["principal"],
            "people": [change["principal"]],
            "reason": change["reason"],
            "time": time.astimezone(UTC).isoformat(),
        }
        data = canonical_json(entry)
        row = {
            "model": version.model,
            "number": entry["number"],
            "entry": data,
            "hash": sha256_bytes(data),
            "version": version.number,
            "kind": "taken_over",
            "principal": change["principal"],
            "report_digest": version.report_digest,
            "policy_digest": "",
            "override": "",
            "promote_time": time,
        }
        last[version.model] = row
        rows.append(row)
    return rows


def _aware(time: datetime) -> datetime:
    """SQLite returns times without their zone, which is UTC."""
    return time if time.tzinfo else time.replace(tzinfo=UTC)
