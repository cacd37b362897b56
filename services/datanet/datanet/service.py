"""Builds the service from its settings."""

from __future__ import annotations

from openledger.datanet.v1.datanet_pb2_grpc import add_DatanetServiceServicer_to_server

from datanet import store
from datanet.api import DatanetApi
from datanet.audit import facts
from datanet.evaluation_items import EvaluationItemsCache
from datanet.intake import Intake
from datanet.references import references
from datanet.registry import Registry
from datanet.review import Review
from datanet.seal_operations import SealOperations
from datanet.seal_runner import SealRunner
from datanet.sealing import Sealing
from datanet.settings import DatanetSettings
from datanet.stream import BatchWriting
from datanet.work_folders import WorkFolders
from servicekit.database.watches import Changes
from servicekit.server import Service


def build(settings: DatanetSettings) -> Service:
    """Returns the service, ready to run."""
    service = Service("datanet", settings, "datanet")
    changes = Changes(service.engine, store.operations.versions)
    work = WorkFolders(settings.state_dir / "datanet" / "sealing")
    sealing = Sealing(service.engine, service.objects, changes)
    runner = SealRunner(
        engine=service.engine,
        sealing=sealing,
        changes=changes,
        work=work,
        max_running=settings.max_running_seals,
    )
    evaluation_items = EvaluationItemsCache(service.objects)
    api = DatanetApi(
        registry=Registry(service.engine, evaluation_items, settings.gate_items_digest),
        intake=Intake(service.engine, evaluation_items, settings.max_rejected_per_contributor),
        review=Review(service.engine, work),
        sealing=sealing,
        operations=SealOperations(service.engine, changes, runner.notify),
        changes=changes,
        writing=BatchWriting(settings.batch_records),
    )
    service.add_references(references)
    service.add_facts(facts)
    service.add_servicer(add_DatanetServiceServicer_to_server, api)
    service.add_request_ids(settings.request_id_ttl_s)
    service.add_thread("sealing", runner.run)
    return service
