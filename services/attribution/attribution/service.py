"""Builds the service from its settings."""

from __future__ import annotations

from openledger.attribution.v1.attribution_pb2_grpc import add_AttributionServiceServicer_to_server
from openledger.datanet.v1.events_pb2 import SnapshotSealed
from openledger.inference.v1.inference_pb2 import InferenceCompleted
from openledger.trainer.v1.events_pb2 import ModelVersionChanged

from attribution import events, store
from attribution.api import AttributionApi
from attribution.audit import facts
from attribution.indexing import Indexer
from attribution.models import AdapterModels
from attribution.references import references
from attribution.settings import AttributionSettings
from attribution.worker import ScoringWorker
from modelkit.weights import compute
from servicekit.database.watches import Changes
from servicekit.eventlog.topics import DATANET_SNAPSHOT_V1, INFERENCE_COMPLETED_V1, MODEL_VERSION_V1
from servicekit.server import Service
from servicekit.server.loops import repeat

SCORING_POLL_S = 0.25
SCORING_BOUND_S = 300.0
"""One answer takes seconds; the first of a model loads it."""
"""How often the database is read for answers to score while there are none."""


def build(settings: AttributionSettings) -> Service:
    """Returns the service, ready to run. A model is loaded when the first index or answer needs it."""
    service = Service("attribution", settings, "attribution")
    models = AdapterModels(
        store=service.objects,
        cache_dir=settings.cache_folder,
        compute=compute.measure(),
        projection=settings.index_parameters.projection,
        adapters_kept=settings.adapters_kept,
        bases_kept=settings.bases_kept,
    )
    indexer = Indexer(
        engine=service.engine,
        objects=service.objects,
        models=models,
        parameters=settings.index_parameters,
        work_dir=settings.work_folder,
        batch_tokens=settings.batch_tokens,
    )
    changes = Changes(service.engine, store.answer_versions)
    worker = ScoringWorker(
        engine=service.engine,
        objects=service.objects,
        models=models,
        parameters=settings.scoring_parameters,
        changes=changes,
    )
    service.add_thread("indexer", indexer.run)
    service.add_thread(
        "scoring", repeat(worker.step, every_s=SCORING_POLL_S, name="scoring", bound_s=SCORING_BOUND_S)
    )
    service.subscribe(DATANET_SNAPSHOT_V1, SnapshotSealed, events.snapshot_sealed)
    service.subscribe(MODEL_VERSION_V1, ModelVersionChanged, events.model_version_changed)
    service.subscribe_batch(INFERENCE_COMPLETED_V1, InferenceCompleted, events.inferences_completed)
    service.add_references(references)
    service.add_facts(facts)
    service.add_servicer(add_AttributionServiceServicer_to_server, AttributionApi(service.engine, changes))
    return service
