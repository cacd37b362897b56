"""Every setting of this service; those that all services share stand in `servicekit.settings`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from servicekit.settings import ServiceSettings


class DatanetSettings(ServiceSettings):
    """Settings of datanet."""

    service: ClassVar[str] = "datanet"

    batch_records: int = Field(
        100, ge=1, le=1000, description="Most records of one stream that are written in one transaction."
    )
