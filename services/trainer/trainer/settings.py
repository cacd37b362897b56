"""Every setting of this service; those that all services share are in `servicekit.settings`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from servicekit.settings import ServiceSettings


class TrainerSettings(ServiceSettings):
    """Settings of trainer."""

    service: ClassVar[str] = "trainer"

    ray_address: str = Field(
        "http://127.0.0.1:8265", description="Ray's Jobs API, which runs trainings and evaluations."
    )
    base_models: str = Field(
        "smollm2-135m-instruct",
        description="Base models to offer, comma-separated: smollm2-135m-instruct, tiny. Missing ones are imported.",
    )
    jobs_dir: Path | None = Field(
        None,
        description="Folder of jobs' inputs, progress and results, shared with Ray's workers; default <state_dir>/trainer/jobs.",
    )
    jobs_cache_dir: Path | None = Field(
        None,
        description="Folder where jobs keep unpacked models and rehearsal; default <state_dir>/trainer/cache. May be emptied.",
    )
    job_python: str = Field(
        sys.executable, description="Python interpreter on Ray's machines that has this package."
    )
    max_running_jobs: int = Field(
        1, ge=1, le=1000, description="Jobs handed to Ray at a time; more would only share its cores."
    )
    poll_interval_s: float = Field(0.5, gt=0, le=60, description="How often running jobs are looked at.")

    @property
    def jobs(self) -> Path:
        """The jobs' folder, absolute."""
        return (self.jobs_dir or self.state_dir / "trainer" / "jobs").absolute()

    @property
    def jobs_cache(self) -> Path:
        """The jobs' cache, absolute."""
        return (self.jobs_cache_dir or self.state_dir / "trainer" / "cache").absolute()

    @property
    def base_model_ids(self) -> list[str]:
        """The base models to offer."""
        return [name.strip() for name in self.base_models.split(",") if name.strip()]
