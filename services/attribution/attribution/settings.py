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
        4,
        ge=1,
        le=64,
        description="Dimensions that a layer's long side is projected to, in each half of the projection.",
    )
    projection_rank: int = Field(16, ge=1, le=256, description="Maximum LoRA rank that is not projected.")
    damping: float = Field(
        0.1,
        gt=0,
        le=10,
        description="Fraction of the mean eigenvalue that is added to each block of the preconditioner.",
    )
    threshold_quantile: float = Field(
        0.95,
        gt=0.5,
        lt=1,
        description="Quantile of the controls' noise above which a record's influence counts.",
    )
    alpha: float = Field(
        0.05,
        gt=0,
        lt=0.5,
        description="Probability of any false attribution of an answer, over all its contributors.",
    )
    permutations: int = Field(1999, ge=99, le=100_000, description="Relabelings of each contributor's test.")
    resamples: int = Field(1000, ge=100, le=100_000, description="Bootstrap resamples of each interval.")
    min_controls: int = Field(
        20, ge=10, description="Minimum number of control clusters; with fewer, nothing is attributed."
    )
    span_min_words: int = Field(4, ge=1, le=100, description="Minimum length of a matching span, in words.")
    span_max_records: int = Field(
        10, ge=1, le=1000, description="Maximum number of records listed for each span."
    )
    batch_tokens: int = Field(
        1024,
        ge=64,
        le=1_000_000,
        description="Maximum number of padded tokens of one gradient batch; determines its memory.",
    )
    adapters_kept: int = Field(4, ge=1, le=64, description="Number of adapters kept in memory for each base.")
    bases_kept: int = Field(1, ge=1, le=8, description="Number of base models kept in memory.")

    @property
    def index_parameters(self) -> IndexParameters:
        """Returns the parameters that determine an index, together with its model."""
        projection = ProjectionSpec(self.projection_seed, self.projection_width, self.projection_rank)
        return IndexParameters(projection, self.damping)

    @property
    def scoring_parameters(self) -> ScoringParameters:
        """Returns the parameters that determine an answer's shares, together with its index."""
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
        """Returns the folder of unfinished indexes. If it is deleted, their builds start again."""
        return self.state_dir / self.service / "indexing"

    @property
    def cache_folder(self) -> Path:
        """Returns the folder of unpacked models. It may be emptied while the service is stopped."""
        return self.state_dir / "cache" / "models"
