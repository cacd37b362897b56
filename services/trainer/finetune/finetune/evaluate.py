"""The evaluation job: `python -m finetune.evaluate --run FOLDER`, submitted by the service to Ray.

One process scores both models; Ray gives it a machine, but has nothing to distribute.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from finetune.watchdog import end_with_parent, exclusive_use
from servicekit import collector, private
from servicekit.objects import ObjectStore
from trainer.contract.evaluation import EvaluationJob, EvaluationResult
from trainer.contract.failure import describe, write_failure
from trainer.contract.files import RESULT_FILE, write_json
from trainer.contract.progress import ProgressWriter


def run(folder: Path) -> None:
    """Evaluates what the folder's job file says."""
    if EvaluationResult.read(folder) is not None:
        return
    job = EvaluationJob.read(folder)
    with ProgressWriter(folder) as progress:
        progress.report("loading", 0, 0, "")
        with collector.paused():
            from finetune.evaluation.run import Evaluation

        store = ObjectStore(job.object_store, cache=Path(job.cache_dir) / "objects")
        write_json(folder / RESULT_FILE, Evaluation(job, store, progress).run())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path, required=True, help="the evaluation's folder, with its job.json")
    folder: Path = parser.parse_args().run
    private.protect_process()
    end_with_parent()
    try:
        with exclusive_use(folder):
            run(folder)
    except Exception as error:
        write_failure(folder, describe(error))
        raise


if __name__ == "__main__":
    main()
