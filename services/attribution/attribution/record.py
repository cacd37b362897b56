"""The attribution record of one answer, whose digest is part of the leaf on chain.

Canonical JSON. It has integers where money depends on them, and everything needed to recompute the shares: digests of
model, report and index, method, parameters and seed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from attribution.answer import Answer
from attribution.index import METHOD
from attribution.reliability import NOTE, Reliability
from identity.digest import canonical_json

KIND = "attribution-record"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ShareLine:
    """One contributor's share. Contributors without a share are included: the baselines may give them one."""

    datanet: str
    contributor: str
    ppm: int
    lower_ppm: float
    upper_ppm: float
    p_value: float
    naive_ppm: int
    lexical_ppm: int
    cluster_count: int
    """Trained clusters credited to this contributor."""
    record_count: int
    """Trained records that this contributor submitted."""
    payout_address: str
    top_records: tuple[str, ...]
    """Digests of its most influential records, most influential first; empty without a share."""


@dataclass(frozen=True, kw_only=True)
class SpanLine:
    """Text of the answer or the prompt that also occurs in training records."""

    start: int
    end: int
    text: str
    in_prompt: bool
    occurrence_count: int
    record_digests: tuple[str, ...]
    contributors: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The result of scoring. The defaults are those of an unattributed answer."""

    unattributed_ppm: int
    unattributed_reason: str
    shares: tuple[ShareLine, ...] = ()
    spans: tuple[SpanLine, ...] = ()
    index_digest: str = ""
    parameters: dict[str, object] = field(default_factory=dict)
    threshold: float = 0.0
    chance_excess: float = 0.0
    mass: float = 0.0
    naive_control_ppm: int = 0
    reliability: Reliability | None = None
    tuned_log_likelihood: float = 0.0
    """Log-likelihood of the answer's tokens with the adapter, in nats."""
    base_log_likelihood: float = 0.0
    """The same without the adapter."""
    brought_ppm: int = 0
    """The part of the answer that is due to fine-tuning: 1 - p_base / p_tuned."""


def to_bytes(answer: Answer, scored: Scored, score_time: datetime) -> bytes:
    """Returns the record's canonical JSON."""
    return canonical_json(
        {
            "kind": KIND,
            "version": VERSION,
            "method": METHOD,
            "inference": answer.inference,
            "model": asdict(answer.model),
            "index_digest": scored.index_digest,
            "parameters": scored.parameters,
            "shares": [asdict(share) for share in scored.shares],
            "unattributed_ppm": scored.unattributed_ppm,
            "unattributed_reason": scored.unattributed_reason,
            "threshold": scored.threshold,
            "chance_excess": scored.chance_excess,
            "mass": scored.mass,
            "tuned_log_likelihood": scored.tuned_log_likelihood,
            "base_log_likelihood": scored.base_log_likelihood,
            "brought_ppm": scored.brought_ppm,
            "naive_control_ppm": scored.naive_control_ppm,
            "spans": [asdict(span) for span in scored.spans],
            "reliability": None
            if scored.reliability is None
            else {**scored.reliability.to_json(), "note": NOTE},
            "usage": {"input_tokens": answer.input_tokens, "output_tokens": answer.output_tokens},
            "principal": answer.principal,
            "model_owner": answer.model_owner,
            "left_out": list(answer.left_out),
            "score_time": score_time.astimezone(UTC).isoformat(),
        }
    )
