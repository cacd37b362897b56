"""Puts the service together from its settings."""

from __future__ import annotations

from openledger.attribution.v1.attribution_pb2_grpc import add_AttributionServiceServicer_to_server
from openledger.datanet.v1 import events_pb2 as datanet_events
from openledger.inference.v1 import inference_pb2
from openledger.trainer.v1 import events_pb2 as trainer_events

from attribution import events
from attribution.api import AttributionApi
from attribution.indexing import Indexer
from attribution.models import AdapterModels
from attribution.references import references
from attribution.settings import AttributionSettings
from attribution.worker import ScoringWorker
from modelkit import compute
from servicekit.server import Service
from servicekit.topics import DATANET_SNAPSHOT_V1, INFERENCE_COMPLETED_V1, MODEL_VERSION_V1


def build(settings: AttributionSettings) -> Service:
    """The service, ready to run. No model is loaded before the first index or answer needs it."""
    service = Service("attribution", settings, "attribution")
    models = AdapterModels(
        service.objects,
        settings.cache_folder,
        compute.measure(),
        settings.index_parameters.projection,
        settings.adapters_kept,
        settings.bases_kept,
    )
    indexer = Indexer(
        service.engine,
        service.objects,
        models,
        settings.index_parameters,
        settings.work_folder,
        settings.batch_tokens,
    )
    worker = ScoringWorker(service.engine, service.objects, models, settings.scoring_parameters)
    service.add_thread("indexer", indexer.run)
    service.add_thread("scoring", worker.run)
    service.add_consumer(
        "attribution",
        {
            DATANET_SNAPSHOT_V1: {datanet_events.SnapshotSealed.DESCRIPTOR.full_name: events.snapshot_sealed},
            MODEL_VERSION_V1: {
                trainer_events.ModelVersionChanged.DESCRIPTOR.full_name: events.model_version_changed
            },
            INFERENCE_COMPLETED_V1: {
                inference_pb2.InferenceCompleted.DESCRIPTOR.full_name: events.inference_completed
            },
        },
    )
    service.add_references(references)
    service.add_servicer(add_AttributionServiceServicer_to_server, AttributionApi(service.engine))
    return service
