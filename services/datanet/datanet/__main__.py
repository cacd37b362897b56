"""Starts the service."""

from __future__ import annotations

import sys

from openledger.datanet.v1.datanet_pb2_grpc import add_DatanetServiceServicer_to_server

from datanet.api import DatanetApi
from datanet.references import references
from datanet.settings import DatanetSettings
from servicekit.request_ids import pruning
from servicekit.server import Service, serve


def build(settings: DatanetSettings) -> Service:
    """The service, ready to run."""
    service = Service("datanet", settings, "datanet")
    api = DatanetApi(service.engine, service.objects, settings.batch_records)
    service.add_references(references)
    service.add_servicer(add_DatanetServiceServicer_to_server, api)
    service.add_thread("request-ids", pruning(service.engine, settings.request_id_ttl_s))
    return service


if __name__ == "__main__":
    sys.exit(serve(DatanetSettings, build))
