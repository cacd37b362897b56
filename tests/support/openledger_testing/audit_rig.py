"""Serves the facts of a platform that is not running: the services' own audit modules, over copies of their databases.

Reconciliation then works as on a running platform: by RPC, through the servers' whole pipeline.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Self

from openledger.audit.v1.audit_pb2 import Consumer, Fact, FactsPage, ReadFactsRequest, ReadObjectRequest
from openledger.audit.v1.audit_pb2_grpc import AuditServiceServicer, add_AuditServiceServicer_to_server
from openledger.common.v1.object_pb2 import ObjectChunk
from sqlalchemy import Engine

from openledger_client import services
from openledger_client.addresses import Addresses
from openledger_client.client import Client
from openledger_client.services import ATTRIBUTION, CHAIN_RELAY, INFERENCE, TRAINER, Service
from servicekit.audit import AuditServicer, Declared
from servicekit.auth import DevelopmentIssuer
from servicekit.database import engine
from servicekit.eventlog import Topic
from servicekit.eventlog.topics import (
    ATTRIBUTION_SCORED_V1,
    DATANET_SNAPSHOT_V1,
    INFERENCE_COMPLETED_V1,
    MODEL_VERSION_V1,
)
from servicekit.objects import ObjectStore
from servicekit.server import Service as Server
from servicekit.settings import ServiceSettings
from servicekit.testing.services import running

CONSUMED: Mapping[Service[Any], tuple[str, list[Topic]]] = {
    TRAINER: ("trainer", [DATANET_SNAPSHOT_V1]),
    INFERENCE: ("inference", [MODEL_VERSION_V1]),
    ATTRIBUTION: ("attribution", [DATANET_SNAPSHOT_V1, MODEL_VERSION_V1, INFERENCE_COMPLETED_V1]),
    CHAIN_RELAY: ("chain-relay", [DATANET_SNAPSHOT_V1, MODEL_VERSION_V1, ATTRIBUTION_SCORED_V1]),
}
"""The groups that running services would declare."""


class _Switch(AuditServiceServicer):
    """An audit API whose service can be exchanged while its server runs."""

    current: AuditServicer

    def ReadFacts(self, request: ReadFactsRequest, context: Any) -> AsyncIterator[FactsPage]:
        return self.current.ReadFacts(request, context)

    def ReadObject(self, request: ReadObjectRequest, context: Any) -> AsyncIterator[ObjectChunk]:
        return self.current.ReadObject(request, context)


@dataclass
class AuditRig:
    """One server for each service, started once; `show` says which state folder they serve."""

    client: Client = field(init=False)
    servers: dict[str, Server] = field(default_factory=dict)
    _switches: dict[str, _Switch] = field(default_factory=dict)
    _running: dict[str, ExitStack] = field(default_factory=dict)
    _engines: list[Engine] = field(default_factory=list)
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        with self._stack as stack:
            state_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="openledger-audit-")))
            settings = ServiceSettings(state_dir=state_dir, auth_mode="development", log_level="ERROR")
            for service in services.ALL:
                switch = self._switches[service.name] = _Switch()
                server = Server(service.name, settings, None)
                server.add_servicer(add_AuditServiceServicer_to_server, switch)
                own = ExitStack()
                self.servers[service.name] = own.enter_context(running(server))
                self._running[service.name] = stack.enter_context(own)
            token = DevelopmentIssuer(state_dir, settings.auth_audience).mint("auditor", ["auditor"])
            self.client = stack.enter_context(Client(Addresses(state_dir=state_dir), token=token))
            stack.callback(self._dispose)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()

    def as_role(self, role: str) -> Client:
        """Returns a client of a caller with another role."""
        settings = next(iter(self.servers.values())).settings
        token = DevelopmentIssuer(settings.state_dir, settings.auth_audience).mint("somebody", [role])
        return Client(Addresses(state_dir=settings.state_dir), token=token)

    def stop(self, service: Service[Any]) -> None:
        """Stops one server; returns when it has stopped."""
        self._running[service.name].close()

    def show(self, folder: Path) -> None:
        """Serves what a state folder on embedded defaults holds."""
        self._dispose()
        for service in services.ALL:
            database = engine(f"sqlite:///{folder}/{service.name}/{service.name}.db")
            self._engines.append(database)
            audit: Any = import_module(f"{service.module}.audit")
            files: Callable[[], Iterable[Fact]] = tuple
            if service is INFERENCE:
                files = partial(audit.logged, folder / service.name / "wal")
            declared = Declared(
                service=service.name, facts=audit.facts, files=files, consumers=partial(_consumers, service)
            )
            objects = ObjectStore(folder / "objects")
            self._switches[service.name].current = AuditServicer(declared, database, objects)

    def _dispose(self) -> None:
        for each in self._engines:
            each.dispose()
        self._engines.clear()


def _consumers(service: Service[Any]) -> list[Consumer]:
    group, topics = CONSUMED.get(service, ("", []))
    return [Consumer(group=group, topic=topic.name, event_types=topic.messages) for topic in topics]
