"""Replay is called rehearsal, and an assessment is stored in this service's own form instead of its API's"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_RUNS = sa.table(
    "training_runs",
    sa.column("id", sa.String),
    sa.column("spec", sa.JSON),
    sa.column("origins", sa.JSON),
    sa.column("assessment", sa.JSON),
)
_SEVERITIES = {"SEVERITY_INFO": 1, "SEVERITY_WARNING": 2, "SEVERITY_DANGER": 3}
_NUMBERS = (
    "learning_rate",
    "steps",
    "batch_size",
    "lora_rank",
    "lora_alpha",
    "warmup_ratio",
    "max_tokens",
    "seed",
    "workers",
)
_REHEARSAL_NUMBERS = ("sequences", "tokens_each", "sequences_per_step", "kl_weight")


def upgrade() -> None:
    _rewrite(
        lambda row: {
            "spec": _renamed_spec(row.spec, "replay", "rehearsal"),
            "origins": _renamed_paths(row.origins, "replay", "rehearsal"),
            "assessment": _own(row.assessment),
        }
    )


def downgrade() -> None:
    _rewrite(
        lambda row: {
            "spec": _renamed_spec(row.spec, "rehearsal", "replay"),
            "origins": _renamed_paths(row.origins, "rehearsal", "replay"),
            "assessment": _message(row.assessment),
        }
    )


def _rewrite(change: Callable[[Any], dict[str, Any]]) -> None:
    connection = op.get_bind()
    for row in connection.execute(sa.select(_RUNS)).all():
        connection.execute(sa.update(_RUNS).where(_RUNS.c.id == row.id).values(**change(row)))


def _renamed_spec(spec: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    return {(new if name == old else name): value for name, value in spec.items()}


def _renamed_paths(origins: dict[str, str], old: str, new: str) -> dict[str, str]:
    return {_renamed(path, old, new): origin for path, origin in origins.items()}


def _renamed(path: str, old: str, new: str) -> str:
    return f"{new}.{path.partition('.')[2]}" if path.startswith(f"{old}.") else path


def _own(message: dict[str, Any]) -> dict[str, Any]:
    """From the API's message of the first release as JSON, which leaves out zeros and writes 64-bit integers as text."""
    findings = [
        {
            "severity": _SEVERITIES[finding["severity"]],
            "parameter": _renamed(finding.get("parameter", ""), "replay", "rehearsal"),
            **{name: finding.get(name, "") for name in ("value", "consequence", "advice", "source")},
        }
        for finding in message.get("findings", [])
    ]
    origins = {value["parameter"]: value["origin"] for value in message.get("values", [])}
    return {
        "findings": findings,
        "suggested": _own_spec(message["suggested"]),
        "effective": _own_spec(message["effective"]),
        "origins": _renamed_paths(origins, "replay", "rehearsal"),
        "expected_s": message.get("expected_s", 0.0),
        "expected_basis": "",
    }


def _own_spec(message: dict[str, Any]) -> dict[str, Any]:
    replay = message.get("replay", {})
    kind = replay.get("kind", "REPLAY_KIND_NONE").removeprefix("REPLAY_KIND_").lower()
    return {
        **{name: _number(message.get(name, 0)) for name in _NUMBERS},
        "target_modules": message.get("target_modules", []),
        "rehearsal": {"kind": kind, **{name: _number(replay.get(name, 0)) for name in _REHEARSAL_NUMBERS}},
    }


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, str) else value


def _message(own: dict[str, Any]) -> dict[str, Any]:
    names = {number: name for name, number in _SEVERITIES.items()}
    values = {**_flat(own["effective"])}
    return {
        "findings": [
            {
                **finding,
                "severity": names[finding["severity"]],
                "parameter": _renamed(finding["parameter"], "rehearsal", "replay"),
            }
            for finding in own["findings"]
        ],
        "suggested": _message_spec(own["suggested"]),
        "effective": _message_spec(own["effective"]),
        "values": [
            {
                "parameter": _renamed(path, "rehearsal", "replay"),
                "value": _text(values[path]),
                "origin": origin,
            }
            for path, origin in own["origins"].items()
        ],
        "expected_s": own["expected_s"],
    }


def _message_spec(own: dict[str, Any]) -> dict[str, Any]:
    rehearsal = own["rehearsal"]
    replay = {**rehearsal, "kind": f"REPLAY_KIND_{rehearsal['kind'].upper()}"}
    content = {name: value for name, value in own.items() if name != "rehearsal"}
    return {**content, "seed": str(own["seed"]), "replay": replay}


def _flat(spec: dict[str, Any]) -> dict[str, Any]:
    nested = {f"rehearsal.{name}": value for name, value in spec["rehearsal"].items()}
    return {**{name: value for name, value in spec.items() if name != "rehearsal"}, **nested}


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(value) if isinstance(value, list) else str(value)
