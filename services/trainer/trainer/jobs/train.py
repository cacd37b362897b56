"""The training job: `python -m trainer.jobs.train --run FOLDER`, submitted by the service to Ray.

Imports Ray first and torch only in the worker: the driver has nothing to compute.
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

from trainer.jobs.failure import describe, write_failure
from trainer.jobs.files import TrainingJob, TrainingResult

WORKER_RESTARTS = 2
"""Workers that die (memory, a lost node) are replaced this often; they go on from the last checkpoint."""


def work(config: dict[str, Any]) -> None:
    """What each worker does; runs in a process of its own."""
    from ray.train import get_context

    from trainer.training.run import train
    from trainer.training.workers import Worker

    context = get_context()
    train(Path(config["folder"]), Worker(context.get_world_rank(), context.get_world_size()))


def run(folder: Path) -> None:
    """Trains what the folder's job file says. Raises what the workers raised."""
    job = TrainingJob.read(folder)
    if TrainingResult.read(folder) is not None:
        return
    ray.init(address="auto", log_to_driver=False, logging_level=logging.WARNING, configure_logging=False)
    TorchTrainer(
        work,
        train_loop_config={"folder": str(folder.absolute())},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=int(job.spec["workers"]), resources_per_worker={"CPU": 1}),
        run_config=RunConfig(
            name=job.run,
            storage_path=str(folder.absolute() / "ray"),
            failure_config=FailureConfig(max_failures=WORKER_RESTARTS),
        ),
    ).fit()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path, required=True, help="the run's folder, with its job.json")
    folder: Path = parser.parse_args().run
    try:
        run(folder)
    except Exception as error:
        write_failure(folder, describe(error))
        raise


if __name__ == "__main__":
    main()
