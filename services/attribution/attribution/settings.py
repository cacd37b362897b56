"""Every setting of the attribution service."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from attribution.index import IndexParameters
from attribution.projection import ProjectionSpec
from attribution.scoring import ScoringParameters
from attribution.shares import ShareParameters
from servicekit.settings import ServiceSettings


class AttributionSettings(ServiceSettings):
    """Read from OPENLEDGER_ATTRIBUTION_<FIELD>."""

    service: ClassVar[str] = "attribution"

    projection_seed: int = Field(0, ge=0, description="Seed of the gradient projection's signs.")
    projection_width: int = Field(
        4, ge=1, le=64, description="Dimensions a layer's long side keeps, in each half of the projection."
    )
    projection_rank: int = Field(
        16, ge=1, le=256, description="Longest LoRA rank side that is not projected."
    )
    damping: float = Field(
        0.1, gt=0, le=10, description="Part of the mean eigenvalue added to each block of the preconditioner."
    )
    threshold_quantile: float = Field(
        0.95, gt=0.5, lt=1, description="Quantile of the controls' influences that a record must exceed."
    )
    alpha: float = Field(
        0.05,
        gt=0,
        lt=0.5,
        description="Chance, over all contributors of an answer, of any false attribution.",
    )
    permutations: int = Field(1999, ge=99, le=100_000, description="Relabelings of each contributor's test.")
    resamples: int = Field(1000, ge=100, le=100_000, description="Bootstrap resamples of each interval.")
    min_controls: int = Field(
        20, ge=10, description="Control clusters below which nothing is attributed: no null, no claim."
    )
    span_min_words: int = Field(4, ge=1, le=100, description="Shortest matching span, in words.")
    span_max_records: int = Field(10, ge=1, le=1000, description="Records named for each span.")
    batch_tokens: int = Field(
        1024, ge=64, le=1_000_000, description="Padded tokens of one gradient batch: its memory."
    )
    adapters_kept: int = Field(4, ge=1, le=64, description="Adapters that stay on a base in memory.")
    bases_kept: int = Field(1, ge=1, le=8, description="Base models that stay in memory.")

    @property
    def index_parameters(self) -> IndexParameters:
        """What determines an index, with its model."""
        projection = ProjectionSpec(self.projection_seed, self.projection_width, self.projection_rank)
        return IndexParameters(projection, self.damping)

    @property
    def scoring_parameters(self) -> ScoringParameters:
        """What determines an answer's shares, with its index."""
        shares = ShareParameters(
            threshold_quantile=self.threshold_quantile,
            alpha=self.alpha,
            permutations=self.permutations,
            resamples=self.resamples,
            min_controls=self.min_controls,
        )
        return ScoringParameters(shares, self.span_min_words, self.span_max_records)

    @property
    def work_folder(self) -> Path:
        """Unfinished indexes: may be deleted, and then they begin anew."""
        return self.state_dir / self.service / "indexing"

    @property
    def cache_folder(self) -> Path:
        """Unpacked models; may be emptied while the service does not run."""
        return self.state_dir / "cache" / "models"
