"""The evaluation job: `python -m trainer.jobs.evaluate --run FOLDER`, submitted by the service to Ray.

One process scores both models; Ray gives it a machine, but has nothing to distribute.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from servicekit.objects import ObjectStore
from trainer.evaluation.job import EvaluationJob, EvaluationResult
from trainer.jobs.failure import describe, write_failure
from trainer.jobs.fate import die_with_parent, sole_user
from trainer.jobs.files import RESULT_FILE, write_json
from trainer.progress import ProgressWriter


def run(folder: Path) -> None:
    """Evaluates what the folder's job file says."""
    if EvaluationResult.read(folder) is not None:
        return
    job = EvaluationJob.read(folder)
    with ProgressWriter(folder) as progress:
        progress.report("loading", 0, 0, "")
        from trainer.evaluation.run import Evaluation

        store = ObjectStore(job.object_store, cache=Path(job.cache_dir) / "objects")
        write_json(folder / RESULT_FILE, Evaluation(job, store, progress).run())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path, required=True, help="the evaluation's folder, with its job.json")
    folder: Path = parser.parse_args().run
    die_with_parent()
    try:
        with sole_user(folder):
            run(folder)
    except Exception as error:
        write_failure(folder, describe(error))
        raise


if __name__ == "__main__":
    main()
