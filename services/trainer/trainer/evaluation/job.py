"""What an evaluation job is told and what it leaves: the contents of its folder's `job.json` and `result.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from evalstats.comparison import Method
from trainer.evaluation.suites import (
    DEFAULT_DOMAIN_ITEMS,
    DEFAULT_DOMAIN_MARGIN,
    DOMAIN,
    RETAINED,
    SUITE_NAMES,
)
from trainer.jobs.files import JOB_FILE, RESULT_FILE, SnapshotInput


class UnknownSuite(ValueError):
    """A suite of a name that does not exist."""

    def __init__(self, name: str) -> None:
        super().__init__(f"unknown suite {name!r}; there are {', '.join(SUITE_NAMES)}")
        self.name = name


@dataclass(frozen=True)
class SuiteOrder:
    """One suite to run."""

    name: str
    items: int
    """How many to sample; fewer when the suite has fewer."""
    margin: float
    """Retained suites: the largest tolerated fall. Domain: the gain to exceed. In the suite's unit."""

    def __post_init__(self) -> None:
        if self.name not in SUITE_NAMES:
            raise UnknownSuite(self.name)
        if self.items < 2:
            raise ValueError(f"suite {self.name}: {self.items} items; statistics need at least 2")


def order(name: str, items: int = 0, margin: float | None = None) -> SuiteOrder:
    """A suite with defaults where nothing is said (0 items, no margin). Raises UnknownSuite or ValueError."""
    if name not in SUITE_NAMES:
        raise UnknownSuite(name)
    default_items, default_margin = DEFAULT_DOMAIN_ITEMS, DEFAULT_DOMAIN_MARGIN
    if name != DOMAIN:
        default_items, default_margin = RETAINED[name].default_items, RETAINED[name].default_margin
    return SuiteOrder(name, items or default_items, default_margin if margin is None else margin)


def default_orders() -> tuple[SuiteOrder, ...]:
    """All suites at their defaults."""
    return tuple(order(name) for name in SUITE_NAMES)


@dataclass(frozen=True)
class EvaluationJob:
    """All that an evaluation job is told. Written with `trainer.jobs.files.write_json` as `job.json`."""

    base_digest: str
    adapter_digest: str
    snapshots: tuple[SnapshotInput, ...]
    """Where the domain suite's held-out records come from."""
    suites: tuple[SuiteOrder, ...]
    object_store: str
    """Absolute folder or URL."""
    cache_dir: str
    """Folder shared by all jobs: unpacked models, and which outcomes exist already."""
    seed: int = 0
    """Of the samples of items. Reports compare only at the same seed."""
    method: Method = field(default_factory=Method)
    threads: int = 0
    """Of the computation; 0 takes every core. More than are free slows everything down, and by far."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises FileNotFoundError, or ValueError or TypeError for another form."""
        content: dict[str, Any] = json.loads((folder / JOB_FILE).read_bytes())
        return cls(
            **{
                **content,
                "snapshots": tuple(SnapshotInput(**snapshot) for snapshot in content["snapshots"]),
                "suites": tuple(SuiteOrder(**suite) for suite in content["suites"]),
                "method": Method(**content["method"]),
            }
        )


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation job leaves. `result.json` appears whole, as its last act."""

    report_digest: str
    """Digest of the report's canonical JSON, in the object store."""
    outcomes_digest: str
    verdict: str
    """pass, failed or inconclusive."""
    findings: tuple[str, ...]
    compute: str
    """For people, e.g. "cpu/float32"."""
    measurements: Mapping[str, float]
    """Seconds and items a second by suite and model; a suite whose outcomes were known already is not in it."""

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """None while there is no result."""
        path = folder / RESULT_FILE
        if not path.is_file():
            return None
        content = json.loads(path.read_bytes())
        return cls(**{**content, "findings": tuple(content["findings"])})
