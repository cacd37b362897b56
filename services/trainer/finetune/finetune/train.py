"""The training job: `python -m finetune.train --run FOLDER`, submitted by the service to Ray.

One worker trains in the job's own process (Ray Train's local mode): separate controller and worker processes would
each import Ray and torch again, half a minute on two cores. Two or more workers get processes of
their own, on whatever machines Ray has.
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path
from typing import Any

# Read by Ray Train when it is imported. A worker's end is noticed within 0.2 s instead of 2 s; the watcher for
# preempted machines and the state actor's reconciliation have no part on one machine and cost seconds of a start.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_ACTOR_RECONCILIATION", "0")

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from finetune.watchdog import end_with_parent, exclusive_use
from servicekit import collector, private
from trainer.contract.failure import describe, write_failure
from trainer.contract.files import TrainingJob, TrainingResult

WORKER_RESTARTS = 2
"""Workers that die (memory, a lost node) are replaced this often; they resume from the last checkpoint. The process of a
single worker is the job itself, which the service submits again."""


def work(config: dict[str, Any]) -> None:
    """What each worker does."""
    from ray.train import get_context

    with collector.paused():
        from finetune.training.run import train
        from finetune.training.workers import Worker

    context = get_context()
    worker = Worker(context.get_world_rank(), context.get_world_size(), context.get_local_world_size())
    train(Path(config["folder"]), worker)


def run(folder: Path) -> None:
    """Trains what the folder's job file says. Raises what the workers raised."""
    job = TrainingJob.read(folder)
    if TrainingResult.read(folder) is not None:
        return
    workers = int(job.spec["workers"])
    if workers > 1:
        ray.init(address="auto", log_to_driver=False, logging_level=logging.WARNING, configure_logging=False)
    TorchTrainer(
        work,
        train_loop_config={"folder": str(folder.absolute())},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=workers if workers > 1 else 0),
        run_config=RunConfig(
            name=job.run,
            storage_path=str(folder.absolute() / "ray"),
            failure_config=FailureConfig(max_failures=WORKER_RESTARTS if workers > 1 else 0),
        ),
    ).fit()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path, required=True, help="the run's folder, with its job.json")
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
