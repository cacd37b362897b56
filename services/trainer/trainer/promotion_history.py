"""The promotion history of a model: a chain of entries, one for each change of what it serves.

An entry is canonical JSON, named by its sha256, and holds the hash of the entry before. So a reader who keeps the
newest hash notices when an earlier entry is changed, removed or added.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from identity.digest import canonical_json, sha256_bytes
from identity.names import ModelName, ModelVersionName
from trainer.entities import Promotion, PromotionKind

SCHEMA = "openledger.promotion.v1"


def to_bytes(promotion: Promotion) -> bytes:
    """Returns the entry, whose sha256 is its hash."""
    return canonical_json(
        {
            "schema": SCHEMA,
            "model": str(ModelName(promotion.model)),
            "number": promotion.number,
            "previous": promotion.previous_hash,
            "version": str(promotion.version),
            "retired": str(promotion.retired) if promotion.retired else "",
            "kind": promotion.kind.value,
            "report": promotion.report_digest,
            "verdict": promotion.verdict,
            "policy": promotion.policy_digest,
            "override": promotion.override,
            "back_to": promotion.back_to,
            "principal": promotion.principal,
            "people": list(promotion.people),
            "reason": promotion.reason,
            "time": promotion.time.astimezone(UTC).isoformat(),
        }
    )


def entry_hash(promotion: Promotion) -> str:
    """Returns the hash of an entry."""
    return sha256_bytes(to_bytes(promotion))


def from_bytes(entry: bytes) -> Promotion:
    """Reads what `to_bytes` returned."""
    content: dict[str, Any] = json.loads(entry)
    retired = content["retired"]
    return Promotion(
        model=ModelName.parse(content["model"]).model,
        number=content["number"],
        previous_hash=content["previous"],
        version=ModelVersionName.parse(content["version"]),
        retired=ModelVersionName.parse(retired) if retired else None,
        kind=PromotionKind(content["kind"]),
        report_digest=content["report"],
        verdict=content["verdict"],
        policy_digest=content["policy"],
        override=content["override"],
        back_to=content["back_to"],
        principal=content["principal"],
        people=tuple(content["people"]),
        reason=content["reason"],
        time=datetime.fromisoformat(content["time"]),
    )


def served_before(history: Sequence[Promotion]) -> Promotion | None:
    """Returns the promotion to roll back to, of a whole history in order; None when nothing was served before.

    A rollback continues from the promotion that it went back to. So a second one goes further back, and does not
    serve the version again that the first one withdrew.
    """
    if not history:
        return None
    present = _origin(history, history[-1])
    return _origin(history, history[present.number - 2]) if present.number > 1 else None


def _origin(history: Sequence[Promotion], promotion: Promotion) -> Promotion:
    """Returns the promotion that a rollback went back to, which is never a rollback itself; any other as it is."""
    return history[promotion.back_to - 1] if promotion.back_to else promotion
