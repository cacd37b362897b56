"""Every setting of this service; shared settings are in `servicekit.settings`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from servicekit.settings import ServiceSettings


class DatanetSettings(ServiceSettings):
    """Settings of datanet."""

    service: ClassVar[str] = "datanet"

    gate_items_digest: str = Field(
        "",
        pattern="^(sha256:[0-9a-f]{64})?$",
        description="Object of the evaluation items that a Datanet's records must not contain where its policy names none"
        " (docs/data.md). Unset: each policy must name them, or turn the check off.",
    )
    batch_records: int = Field(
        100,
        ge=1,
        le=1000,
        description="Maximum number of records of one stream that are written in one transaction.",
    )
    max_rejected_per_contributor: int = Field(
        100_000,
        ge=1,
        description="Rejected records of one contributor to a Datanet that are stored; above it, its streams are refused.",
    )
    max_running_seals: int = Field(
        2,
        ge=1,
        le=64,
        description="Maximum number of snapshots that this process seals at once, each of another Datanet; the rest wait. Each"
        " takes about 220 MB for a million records.",
    )
