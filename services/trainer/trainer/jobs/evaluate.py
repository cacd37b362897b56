"""The evaluation job: `python -m trainer.jobs.evaluate FOLDER`, run by Ray.

FOLDER holds `job.json` (trainer.evaluation.job.EvaluationJob). The job appends to `progress.jsonl` and leaves
`result.json` as its last act. Running it again is safe at any time: a finished job ends at once, an unfinished
one goes on with the first suite that has no outcomes.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from modelkit.adapter import InvalidAdapter
from modelkit.base_model import InvalidBaseModel
from modelkit.prompt import TemplateError
from servicekit.errors import DomainError
from servicekit.objects import ObjectStore
from trainer.evaluation.domain import EmptyDomainSuite
from trainer.evaluation.job import EvaluationJob, EvaluationResult
from trainer.evaluation.packaged import SuiteUnavailable
from trainer.evaluation.run import Evaluation
from trainer.evaluation.scoring import UnscorableItem
from trainer.jobs.files import RESULT_FILE, write_json
from trainer.progress import ProgressWriter

_SAID_PLAINLY = (
    DomainError,
    EmptyDomainSuite,
    InvalidAdapter,
    InvalidBaseModel,
    SuiteUnavailable,
    TemplateError,
    UnscorableItem,
)
"""What a person can act on: one line says it, without a traceback."""


def evaluate(folder: Path) -> EvaluationResult:
    """Runs the job of a folder, unless it has a result already."""
    if (finished := EvaluationResult.read(folder)) is not None:
        return finished
    job = EvaluationJob.read(folder)
    # Said here because Ray tells a job's process, by the environment, to use one.
    torch.set_num_threads(job.threads or len(os.sched_getaffinity(0)))
    store = ObjectStore(job.object_store, Path(job.cache_dir) / "objects")
    with ProgressWriter(folder) as progress:
        result = Evaluation(job, store, progress).run()
    write_json(folder / RESULT_FILE, result)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m trainer.jobs.evaluate", description=__doc__)
    parser.add_argument("folder", type=Path, help="the job's folder, which holds job.json")
    try:
        result = evaluate(parser.parse_args().folder)
    except _SAID_PLAINLY as error:
        raise SystemExit(f"evaluation failed: {error}") from error
    print(f"verdict {result.verdict}, report {result.report_digest}")


if __name__ == "__main__":
    main()
