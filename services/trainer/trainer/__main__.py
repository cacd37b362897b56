"""Starts the service."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from openledger.trainer.v1.trainer_pb2_grpc import add_TrainerServiceServicer_to_server

from servicekit.request_ids import pruning
from servicekit.server import Service, serve
from servicekit.topics import DATANET_SNAPSHOT_V1
from trainer import events
from trainer.api import TrainerApi
from trainer.base_models import BaseModels
from trainer.entities import JobKind
from trainer.jobs.ray_jobs import RayJobs
from trainer.jobs.runner import JobRunner
from trainer.ray_head import client_environment
from trainer.reconciler import Reconciler
from trainer.references import references
from trainer.settings import TrainerSettings
from trainer.work import EvaluationWork, Places, TrainingWork


def build(settings: TrainerSettings, runner: JobRunner | None = None) -> Service:
    """The service, ready to run. `runner` is Ray at the settings' address unless given."""
    service = Service("trainer", settings, "trainer")
    base_models = BaseModels(settings.state_dir, settings.base_model_ids)
    if runner is None:
        _authenticate(settings)
        runner = RayJobs(settings.ray_address)
    store = settings.object_store
    places = Places(store if "://" in store else str(Path(store).absolute()), str(settings.jobs_cache))
    reconciler = Reconciler(
        service.engine,
        runner,
        {JobKind.TRAIN: TrainingWork(places), JobKind.EVALUATE: EvaluationWork(places)},
        settings.jobs,
        settings.job_python,
        settings.max_running_jobs,
    )
    api = TrainerApi(service.engine, service.objects, base_models, settings.jobs)
    service.add_references(references(base_models, settings.jobs))
    service.add_servicer(add_TrainerServiceServicer_to_server, api)
    sealed = {"openledger.datanet.v1.SnapshotSealed": events.snapshot_sealed}
    service.add_consumer("trainer", {DATANET_SNAPSHOT_V1: sealed})
    service.add_thread("request-ids", pruning(service.engine, settings.request_id_ttl_s))
    service.add_thread("reconciler", partial(reconciler.run, interval_s=settings.poll_interval_s))
    service.add_thread(
        "base models", partial(base_models.import_missing, settings.state_dir, settings.object_store)
    )
    return service


def _authenticate(settings: TrainerSettings) -> None:
    """A local head takes the token of our state folder; for any other, RAY_AUTH_MODE and its token are set outside."""
    local = urlsplit(settings.ray_address).hostname in ("127.0.0.1", "localhost", "::1")
    if local and "RAY_AUTH_MODE" not in os.environ:
        os.environ.update(client_environment(settings.state_dir))


if __name__ == "__main__":
    sys.exit(serve(TrainerSettings, build))
