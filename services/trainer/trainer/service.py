"""Builds the service from its settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from openledger.datanet.v1.events_pb2 import SnapshotSealed
from openledger.trainer.v1.trainer_pb2_grpc import add_TrainerServiceServicer_to_server

from servicekit.database.watches import Changes
from servicekit.eventlog.topics import DATANET_SNAPSHOT_V1
from servicekit.server import Service
from servicekit.server.loops import repeat
from trainer import events
from trainer.api import TrainerApi
from trainer.audit import facts
from trainer.base_models import BaseModels, Importer
from trainer.contract.ray_token import bearer_token, client_environment
from trainer.entities import JobKind
from trainer.gate_policies import GatePolicies
from trainer.job_handlers import EvaluationHandler, Locations, TrainingHandler
from trainer.jobs.ray_jobs import RayJobs
from trainer.jobs.runner import JobRunner
from trainer.reconciler import Reconciler
from trainer.references import references
from trainer.settings import TrainerSettings
from trainer.store import jobs


def build(settings: TrainerSettings, runner: JobRunner | None = None) -> Service:
    """Returns the service, ready to run. `runner` is Ray at the settings' address unless given."""
    service = Service("trainer", settings, "trainer")
    base_models = BaseModels(settings.state_dir, settings.base_model_ids)
    runner = runner or RayJobs(settings.ray_address, partial(bearer_token, _ray_environment(settings)))
    store = settings.object_store
    locations = Locations(
        object_store=store if "://" in store else str(Path(store).absolute()),
        cache_dir=str(settings.jobs_cache),
    )
    changes = Changes(service.engine, jobs.versions)
    reconciler = Reconciler(
        engine=service.engine,
        changes=changes,
        runner=runner,
        handlers={
            JobKind.TRAIN: TrainingHandler(locations),
            JobKind.EVALUATE: EvaluationHandler(locations, service.objects),
        },
        jobs_dir=settings.jobs,
        python=settings.job_python,
        max_running=settings.max_running_jobs,
    )
    importer = Importer(base_models, runner, settings.jobs, settings.job_python, locations)
    api = TrainerApi(
        engine=service.engine,
        changes=changes,
        objects=service.objects,
        base_models=base_models,
        jobs_dir=settings.jobs,
        runner=runner,
    )
    GatePolicies(service.engine, service.objects).add_default()
    service.add_references(references(base_models, settings.jobs))
    service.add_facts(facts)
    service.add_servicer(add_TrainerServiceServicer_to_server, api)
    service.subscribe(DATANET_SNAPSHOT_V1, SnapshotSealed, events.snapshot_sealed)
    service.add_request_ids(settings.request_id_ttl_s)
    service.add_thread("reconciler", repeat(reconciler.step, settings.poll_interval_s, name="reconciler"))
    service.add_thread("base models", repeat(importer.step, settings.poll_interval_s, name="base models"))
    return service


def _ray_environment(settings: TrainerSettings) -> Mapping[str, str]:
    """Returns Ray's variables: those of a local head unless RAY_AUTH_MODE says what another Ray asks for."""
    local = urlsplit(settings.ray_address).hostname in ("127.0.0.1", "localhost", "::1")
    if local and "RAY_AUTH_MODE" not in os.environ:
        return client_environment(settings.state_dir)
    return os.environ
