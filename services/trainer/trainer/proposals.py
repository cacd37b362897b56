"""What a client proposes to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from identity.names import BaseModelName
from trainer.assessment import Intent


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A run that a client asks about, or for."""

    base_model: BaseModelName
    snapshots: tuple[WeightedSnapshot, ...]
    values: Mapping[str, Any]
    """What the client set of the spec, by path."""
    intent: Intent


@dataclass(frozen=True)
class WeightedSnapshot:
    """A snapshot by name, with its relative weight."""

    name: str
    weight: float
