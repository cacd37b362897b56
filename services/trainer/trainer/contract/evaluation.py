"""What an evaluation job is asked to do and what it returns: the contents of its `job.json` and `result.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from trainer.contract.files import JOB_FILE, RESULT_FILE, SnapshotInput

DOMAIN = "domain"
"""The suite that asks a Datanet's held-out records: it measures the gain."""


@dataclass(frozen=True)
class SuiteDefaults:
    """What an evaluation takes for a suite when the request names no items and no margin, and how it is measured."""

    items: int
    margin: float
    """Retained suites: the largest tolerated fall. Domain: the gain to exceed. In the suite's unit."""
    rule: str = ""
    """The rule that scores it (`evalstats.rules.Rule`); "" where it depends on the data."""
    version: str = ""
    """Digest of all its items (`evalstats.records.suite_version`); "" where they are the run's own."""


SUITES: Mapping[str, SuiteDefaults] = {
    DOMAIN: SuiteDefaults(items=150, margin=0.0),
    "hellaswag": SuiteDefaults(
        items=100,
        margin=0.05,
        rule="acc_bytes",
        version="sha256:59d29d649b75f31e0a74662de4bab4fc3677bcca151550a046e2cca9ce54d264",
    ),
    "arc_easy": SuiteDefaults(
        items=100,
        margin=0.05,
        rule="acc_bytes",
        version="sha256:d430b3dcfb9491baebe77965bc0662763d58749b35d8945892f0d2e68fe94ef9",
    ),
    "bits_per_byte": SuiteDefaults(
        items=100,
        margin=0.05,
        rule="bits-per-byte",
        version="sha256:f603793dacc87ddcf2c92af455fe6e0dc0c532ac78e3e7d0fae0e3856223baca",
    ),
}
"""Every suite by name. The units are shares of right answers, or bits per byte."""
SUITE_NAMES = tuple(SUITES)


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
    """Returns a suite with defaults for what is left out (0 items, no margin). Raises UnknownSuite or ValueError."""
    if name not in SUITE_NAMES:
        raise UnknownSuite(name)
    defaults = SUITES[name]
    return SuiteOrder(name, items or defaults.items, defaults.margin if margin is None else margin)


def default_orders() -> tuple[SuiteOrder, ...]:
    """Returns all suites at their defaults."""
    return tuple(order(name) for name in SUITE_NAMES)


@dataclass(frozen=True, kw_only=True)
class EvaluationJob:
    """Everything that an evaluation job needs. Written with `trainer.contract.files.write_json` as `job.json`."""

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
    policy: Mapping[str, Any] = field(default_factory=dict)
    """The effective gate policy as JSON (`evalstats.policy.GatePolicy.to_json`): what the report is judged by."""
    policy_source: str = ""
    """Digest of the policy version that the effective policy was made from."""
    method: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of `evalstats.comparison.Method` that differ from its defaults."""
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
            }
        )


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """What an evaluation job returns. It writes `result.json` whole, as its last step."""

    report_digest: str
    """Digest of the report's canonical JSON, in the object store."""
    outcomes_digest: str
    verdict: str
    """pass, failed, inconclusive or incomplete."""
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
