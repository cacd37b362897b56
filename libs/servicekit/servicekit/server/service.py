"""A service from its settings to its last log line."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from openledger.audit.v1.audit_pb2 import Consumer, Fact
from openledger.audit.v1.audit_pb2_grpc import add_AuditServiceServicer_to_server
from sqlalchemy import Engine

from servicekit import private
from servicekit.address import Address, remove_address, write_address
from servicekit.audit import AuditServicer, Declared, Facts
from servicekit.auth import DevelopmentIssuer, KeySet, TokenVerifier
from servicekit.auth.discovery import key_source
from servicekit.database import engine as open_engine
from servicekit.database import migrate, request_ids, run_in_transaction
from servicekit.database.erasure import ERASE_EVERY_S, Erasure
from servicekit.database.issuer import bind_issuer
from servicekit.deadlines import DatabaseDeadlines
from servicekit.delivery.consumer import BatchHandler, ConsumerRunner, Handler
from servicekit.delivery.outbox import OutboxPublisher
from servicekit.delivery.subscriptions import EventHandler, EventsHandler, M, Subscriptions
from servicekit.errors import StartupError
from servicekit.eventlog.base import EventLog, Topic
from servicekit.eventlog.factory import open_event_log
from servicekit.heartbeats import recheck_failing, troubles
from servicekit.objects import ObjectStore
from servicekit.objects.references import PUBLISH_EVERY_S, ReferencePublisher, References
from servicekit.server.certificates import Certificates
from servicekit.server.descriptors import for_http
from servicekit.server.grpc_server import GrpcServer, Registration
from servicekit.server.handler_threads import HandlerThreads
from servicekit.server.http_server import HttpServer
from servicekit.server.limiter import Limiter
from servicekit.server.loops import repeat
from servicekit.server.operations import OperationsServer
from servicekit.server.pipeline import service_pipeline
from servicekit.server.probes import PatientProbe, database_problem, event_loop_problem
from servicekit.server.request_memory import RequestMemory
from servicekit.server.response_memory import ResponseMemory
from servicekit.server.supervision import Supervision, described, stuck_problem
from servicekit.server.threads import Run, Threads
from servicekit.server.tokens import service_token
from servicekit.server.warnings import warnings_of
from servicekit.settings import ServiceSettings
from servicekit.telemetry import traces as telemetry
from servicekit.telemetry.metrics import saturation

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from servicekit.server.http_routes import ErrorFormat, HttpRoute

logger = logging.getLogger(__name__)

# Handlers wait in threads for databases and disks more than they compute.
_HANDLER_THREADS = 32
_CONSUMER_WORKERS = 4
_RECHECK_EVERY_S = 5.0
_PRUNE_EVERY_S = 3600.0


class Service:
    """All parts of a service, opened from its settings; `run` starts and stops it.

    Args:
        name: the service's name, as its package: ``datanet``.
        settings: its configuration.
        migrations_package: the package with the ``migrations`` of its database; None for a service without a database.

    Raises:
        StartupError: a part cannot be opened; the text is one line for the operator.
    """

    def __init__(self, name: str, settings: ServiceSettings, migrations_package: str | None) -> None:
        self.name = name
        self.settings = settings
        telemetry.configure(name, settings)
        if tightened := private.tighten(settings.state_dir):
            logger.warning("%s", tightened)
        self._warnings = warnings_of(settings)
        for warning in self._warnings:
            logger.warning("%s", warning["message"])
        if settings.auth_mode == "development":
            DevelopmentIssuer(settings.state_dir, settings.auth_audience).ensure_keys()
        self.token = service_token(name, settings)
        """Returns this service's own token, for channels to other services."""
        keys = KeySet(settings.auth_jwks or key_source(settings.auth_issuer), settings.auth_keys_max_age_s)
        memory = RequestMemory(settings.max_request_memory_bytes, settings.max_request_streams)
        saturation("request_memory", lambda: memory.used_bytes, settings.max_request_memory_bytes)
        responses = ResponseMemory(settings.max_response_memory_bytes)
        saturation("response_memory", lambda: responses.used_bytes, settings.max_response_memory_bytes)
        self._pipeline = service_pipeline(
            TokenVerifier(
                keys,
                settings.auth_issuer,
                settings.auth_audience,
                settings.auth_roles_claim,
                settings.auth_roles_shape,
            ),
            Limiter(settings.rate_per_s, settings.rate_burst, settings.max_running_calls),
            memory,
            default_deadline_s=settings.default_deadline_s,
            max_deadline_s=settings.max_deadline_s,
            responses=responses,
        )
        self._certificates: Certificates | None = None
        if settings.tls_cert is not None and settings.tls_key is not None:
            self._certificates = Certificates(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
        self.objects = ObjectStore(settings.object_store, cache=settings.state_dir / "cache" / "objects")
        self.event_log: EventLog = _open_event_log(settings.event_log)
        self._engine: Engine | None = None
        self._outbox: OutboxPublisher | None = None
        if migrations_package is not None:
            self._engine = open_engine(
                settings.database_url, DatabaseDeadlines(statement_s=settings.database_statement_s)
            )
            migrate(self._engine, migrations_package)
            bind_issuer(self._engine, migrations_package, settings.auth_issuer, settings.auth_issuer_replaces)
            self._outbox = OutboxPublisher(self._engine, self.event_log)
        self.address: Address | None = None
        """Its endpoints, while it runs."""
        self._registrations: list[Registration] = []
        self._runners: list[ConsumerRunner] = []
        self._subscriptions = Subscriptions()
        self._http: tuple[ASGIApp, int] | None = None
        self._database = (
            None
            if self._engine is None
            else PatientProbe(partial(database_problem, self._engine), "the database")
        )
        self._threads = Threads(self._fail)
        self._threads.add("supervision", Supervision().run)
        self._threads.add("dependencies", repeat(recheck_failing, _RECHECK_EVERY_S, name="dependencies"))
        if self._engine is not None:
            erasure = Erasure(self._engine)
            self.add_thread("erasure", repeat(erasure.step, ERASE_EVERY_S, name="erasure", once_more=True))
        self._publishing = Threads(self._fail)
        self._failure: str | None = None
        self._state = "starting"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._ready = threading.Event()

    @property
    def engine(self) -> Engine:
        """Its database."""
        if self._engine is None:
            raise StartupError(f"service {self.name} has no database")
        return self._engine

    @property
    def outbox(self) -> OutboxPublisher:
        """The publisher of its outbox, which the service runs."""
        if self._outbox is None:
            raise StartupError(f"service {self.name} has no database, so no outbox")
        return self._outbox

    @property
    def grpc_port(self) -> int:
        """The gRPC port, while it runs."""
        return int(self._running().grpc.rsplit(":", 1)[1])

    @property
    def metrics_port(self) -> int:
        """The port of /metrics, while it runs."""
        return int(self._running().metrics.rsplit(":", 1)[1])

    def add_servicer(self, add: Callable[[Any, Any], None], servicer: Any) -> None:
        """Serves a gRPC service: ``add_XServicer_to_server`` and an object with its coroutines."""
        self._registrations.append((add, servicer))

    def subscribe(
        self, topic: Topic | str, message: type[M], handler: EventHandler[M], *, group: str | None = None
    ) -> None:
        """Handles the topic's events of one message type, each once: ``handler(session, event)`` in the inbox transaction.

        All subscriptions of a `group` (by default the service's name) form one consumer group.

        Raises:
            StartupError: the topic is unknown or never holds the message, or the group already has a handler for it.
        """
        self._subscriptions.add(group or self.name, topic, message, handler)

    def subscribe_batch(
        self, topic: Topic | str, message: type[M], handler: EventsHandler[M], *, group: str | None = None
    ) -> None:
        """Handles events like `subscribe`, up to some hundreds in one transaction: ``handler(session, events)``.

        The events are in order and new. When the handler raises, the batch is rolled back and its events are handled one at
        a time, so that only the event at fault is moved to the dead letters (InvalidEvent) or retried (other errors).
        """
        self._subscriptions.add(group or self.name, topic, message, BatchHandler(handler))

    def add_thread(self, name: str, run: Run) -> None:
        """Runs ``run(stop)`` in a thread until the service stops. If it ends earlier, the service ends with code 1."""
        self._threads.add(name, run)

    def add_references(self, references: References) -> None:
        """Publishes regularly which stored objects this service needs, so that garbage collection keeps them."""
        publisher = ReferencePublisher(self.objects, self.name, self.engine, references)
        loop = repeat(publisher.step, PUBLISH_EVERY_S, name="references", expected=(OSError,), once_more=True)
        self.add_thread("references", loop)

    def add_request_ids(self, ttl_s: float) -> None:
        """Deletes the request ids of this service's database after ``ttl_s`` seconds."""
        engine = self.engine

        def step() -> None:
            run_in_transaction(engine, lambda session: request_ids.prune(session, ttl_s))

        self.add_thread("request-ids", repeat(step, min(_PRUNE_EVERY_S, ttl_s / 10), name="request-ids"))

    def add_facts(self, facts: Facts, files: Callable[[], Iterable[Fact]] = tuple) -> None:
        """Serves what this service has recorded, so that operators can reconcile it with other services (`servicekit.audit`)."""
        declared = Declared(service=self.name, facts=facts, files=files, consumers=self._consumed)
        self.add_servicer(
            add_AuditServiceServicer_to_server, AuditServicer(declared, self.engine, self.objects)
        )

    def add_http(self, routes: Sequence[HttpRoute], errors: ErrorFormat, port: int) -> None:
        """Serves HTTP routes on ``grpc_host:port`` (0 picks a free port), through the same pipeline as the RPCs.

        Raises:
            StartupError: a route does not declare who may call it.
        """
        # Imported here, because only services with an HTTP API install Starlette.
        from servicekit.server.http_calls import http_app

        self._http = (http_app(routes, self._pipeline, errors), port)

    def run(self) -> int:
        """Serves until SIGTERM, SIGINT or `stop`, then drains. Returns 0, or 1 when a part of the service failed.

        Raises:
            StartupError: a server cannot listen.
        """
        loop = asyncio.new_event_loop()
        # Not asyncio.run: it waits without a limit for handler threads, even for one that hangs.
        loop.set_default_executor(HandlerThreads(_HANDLER_THREADS))
        try:
            loop.run_until_complete(self._run())
            loop.run_until_complete(_end_tasks())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            self._close()
            loop.close()
        return 0 if self._failure is None else 1

    def stop(self) -> None:
        """Makes the service stop. Any thread may call it, repeatedly."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stopping.set)

    def wait_ready(self, timeout_s: float) -> bool:
        """Waits until the service accepts calls, and returns whether it does. For programs that run it in a thread."""
        return self._ready.wait(timeout_s)

    def _consumer_workers(self) -> int:
        """Returns the number of consumer workers. On SQLite several would only wait for each other's transactions."""
        one_writer = self._engine is not None and self._engine.dialect.name == "sqlite"
        return self.settings.consumer_workers or (1 if one_writer else _CONSUMER_WORKERS)

    def _add_runner(
        self, group: str, handlers: Mapping[str | Topic, Mapping[str, Handler | BatchHandler]]
    ) -> None:
        """Raises StartupError for a message that no imported generated module declares."""
        try:
            runner = ConsumerRunner(
                self.event_log, self._engine, group, handlers, workers=self._consumer_workers()
            )
        except ValueError as error:
            raise StartupError(f"consumer {group}: {error}") from None
        self._runners.append(runner)
        self.add_thread(f"consumer {group}", runner.run)

    def _consumed(self) -> list[Consumer]:
        return [
            Consumer(group=runner.group, topic=topic, event_types=types)
            for runner in self._runners
            for topic, types in runner.handled.items()
        ]

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._loop.add_signal_handler(number, self._stopping.set)
        host = self.settings.grpc_host
        certificates = self._certificates
        grpc_server = GrpcServer(self.settings, self._pipeline, certificates, self._registrations)
        http_server = None
        if self._http is not None:
            https = None if certificates is None else certificates.https()
            http_server = HttpServer(
                self._http[0],
                host,
                self._http[1],
                most=for_http(self.settings.max_http_connections),
                most_per_address=self.settings.max_http_connections_per_address,
                tls=https,
            )
        operations = OperationsServer(
            host,
            self.settings.metrics_port,
            alive=self._alive,
            ready=self._readiness,
            warnings=self._warnings,
            loops=lambda: [described(trouble) for trouble in troubles()],
        )
        try:
            if self._outbox is not None:
                self._publishing.add("outbox", self._outbox.run)
            self._publishing.start()
            for group, handlers in self._subscriptions.by_group.items():
                self._add_runner(group, handlers)
            self._threads.start()
            if http_server is not None:
                await http_server.start()
            await grpc_server.start()
            self._announce(
                grpc_server.port, operations.port, None if http_server is None else http_server.port
            )
            await self._stopping.wait()
            self._state = "draining"
            logger.info("draining", extra={"grace_s": self.settings.grace_s})
        finally:
            await self._drain(grpc_server, http_server)
            operations.close()

    async def _drain(self, grpc_server: GrpcServer, http_server: HttpServer | None) -> None:
        """Stops the servers first, then the consumers, then the outbox, which publishes what the others wrote last."""
        self._state = "draining"
        remove_address(self.settings.state_dir, self.name, os.getpid())
        grace_s = self.settings.grace_s
        servers = [grpc_server.stop(grace_s)]
        if http_server is not None:
            servers.append(http_server.stop(grace_s))
        await asyncio.gather(*servers)
        await asyncio.to_thread(self._threads.stop, grace_s)
        await asyncio.to_thread(self._publishing.stop, grace_s)

    def _close(self) -> None:
        self._pipeline.close()
        self.event_log.close()
        if self._engine is not None:
            self._engine.dispose()
        telemetry.flush()
        logger.info("stopped")

    def _announce(self, grpc_port: int, metrics_port: int, http_port: int | None) -> None:
        host = self.settings.grpc_host
        shown = f"[{host}]" if ":" in host else host
        http = None if http_port is None else f"{shown}:{http_port}"
        self.address = Address(
            service=self.name,
            pid=os.getpid(),
            grpc=f"{shown}:{grpc_port}",
            metrics=f"{shown}:{metrics_port}",
            http=http,
        )
        write_address(self.settings.state_dir, self.address)
        self._state = "ready"
        ready = {
            "event": "ready",
            "service": self.name,
            "grpc": self.address.grpc,
            "metrics": self.address.metrics,
        }
        print(json.dumps({**ready, "http": http}), flush=True)
        self._ready.set()

    def _running(self) -> Address:
        if self.address is None:
            raise StartupError(f"service {self.name} does not listen yet")
        return self.address

    def _fail(self, reason: str) -> None:
        """Stops the service because a part failed. Its supervisor restarts it in a known state."""
        self._failure = self._failure or reason
        logger.critical("stopping: %s", reason)
        self.stop()

    def _alive(self) -> str | None:
        return event_loop_problem(self._loop)

    def _readiness(self) -> str | None:
        if self._state != "ready":
            return self._state
        database = None if self._database is None else self._database.problem()
        return "; ".join(filter(None, (database, stuck_problem()))) or None


async def _end_tasks() -> None:
    """Cancels tasks that libraries left in the event loop, for example watchers of event streams."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    if rest:
        await asyncio.wait(rest, timeout=1)


def _open_event_log(url: str) -> EventLog:
    try:
        return open_event_log(url)
    except (ValueError, OSError) as error:
        raise StartupError(str(error)) from None
