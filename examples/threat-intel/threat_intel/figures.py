"""Every figure of the story: its value, unit, interval, sample size and source. They become story.json."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from openledger.common.v1.estimate_pb2 import Estimate


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure."""

    name: str
    value: float | int | str
    unit: str
    source: str
    """Report digest, batch, transaction, or what was counted or timed."""
    lower: float | None = None
    upper: float | None = None
    confidence: float | None = None
    sample_size: int | None = None
    method: str | None = None


@dataclass
class Figures:
    """The figures of one step."""

    items: list[Figure] = field(default_factory=list)

    def add(self, name: str, value: float | int | str, unit: str, source: str) -> None:
        """A count or a measurement without an interval."""
        self.items.append(Figure(name=name, value=value, unit=unit, source=source))

    def estimate(self, name: str, estimate: Estimate, source: str) -> None:
        """An estimate with its interval."""
        self.items.append(
            Figure(
                name=name,
                value=estimate.value,
                unit=estimate.unit,
                source=source,
                lower=estimate.lower,
                upper=estimate.upper,
                confidence=estimate.confidence,
                sample_size=estimate.sample_size,
                method=estimate.method,
            )
        )

    def as_json(self) -> list[dict[str, Any]]:
        """For the journal and story.json; absent fields are left out."""
        return [
            {key: value for key, value in asdict(figure).items() if value is not None}
            for figure in self.items
        ]


def write_story(path: Path, run: str, scale: str, results: dict[str, dict[str, Any]]) -> None:
    """Writes story.json: each step's figures and facts, in order."""
    story = {
        "run": run,
        "scale": scale,
        "steps": [
            {"step": step, "wall_s": result["wall_s"], "figures": result["figures"], "facts": result["facts"]}
            for step, result in results.items()
        ],
    }
    path.write_text(json.dumps(story, indent=2, ensure_ascii=False) + "\n")
