"""How the control plane and a job exchange data: a folder for each job, with one file in and one file out.

The control plane writes `job.json` before it submits a job; the file never changes. The job writes `result.json`
whole, as its last step. So neither side needs memory to recover from a crash: a result exists or it does not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from servicekit import crash
from servicekit.files import write_whole

crash.primitive(__name__)
JOB_FILE = "job.json"
RESULT_FILE = "result.json"
CHECKPOINT_FILE = "checkpoint.pt"
"""Where a training resumes. The control plane removes it, without loading it, when the job has ended."""
LAST_FINITE_FILE = "last_finite.pt"
"""State before the step that ended a training by a number that is not finite. Kept with the job's folder, for people."""

TRAIN = "finetune.train"
EVALUATE = "finetune.evaluate"
IMPORT_BASE_MODEL = "finetune.import_base_model"
"""The modules that Ray runs, as `python -m MODULE --run FOLDER`."""


def command(python: str, module: str, folder: Path) -> list[str]:
    """Returns the command line of a job."""
    return [python, "-m", module, "--run", str(folder)]


@dataclass(frozen=True, kw_only=True)
class SnapshotInput:
    """A sealed snapshot as a job needs it."""

    name: str
    root: str
    records_digest: str
    manifest_digest: str
    weight: float
    prompt: str
    completion: str


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """Everything that a training job needs."""

    run: str
    """The run's ULID; also its Ray submission id."""
    base_digest: str
    snapshots: tuple[SnapshotInput, ...]
    spec: Mapping[str, Any]
    """TrainingSpec.to_json()."""
    origins: Mapping[str, str]
    object_store: str
    """Absolute folder or URL."""
    cache_dir: str
    """Folder for unpacked base models and rehearsal, shared by all jobs."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        content = json.loads((folder / JOB_FILE).read_bytes())
        snapshots = tuple(SnapshotInput(**snapshot) for snapshot in content.pop("snapshots"))
        return cls(snapshots=snapshots, **content)


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a training job returns."""

    adapter_digest: str
    training_manifest_digest: str
    compute: str
    """For people, e.g. "cpu/float32"."""
    packages: Mapping[str, str]
    measurements: Mapping[str, float]
    """Seconds by phase, tokens, final loss, KL to the base on the task."""

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """None while there is no result."""
        path = folder / RESULT_FILE
        return cls(**json.loads(path.read_bytes())) if path.is_file() else None


def write_json(path: Path, content: object) -> None:
    """Writes a dataclass's fields; the file is complete or not there."""
    write_whole(path, json.dumps(asdict(content), indent=1))  # type: ignore[call-overload]
