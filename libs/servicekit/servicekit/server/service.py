"""A service from its settings to its last log line."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from servicekit import telemetry
from servicekit.address import Address, remove_address, write_address
from servicekit.auth import DevelopmentIssuer, KeySet, TokenVerifier
from servicekit.auth.discovery import key_source
from servicekit.consumer import ConsumerRunner, Handler
from servicekit.database import engine as open_engine
from servicekit.database import migrate
from servicekit.errors import StartupError
from servicekit.eventlog.base import EventLog, Topic
from servicekit.eventlog.factory import open_event_log
from servicekit.objects import ObjectStore
from servicekit.outbox import OutboxPublisher
from servicekit.references import ReferencePublisher, References
from servicekit.server.certificates import Certificates
from servicekit.server.grpc_server import GrpcServer, Registration
from servicekit.server.handler_threads import HandlerThreads
from servicekit.server.http import HttpServer
from servicekit.server.limiter import Limiter
from servicekit.server.operations import OperationsServer
from servicekit.server.threads import Run, Threads
from servicekit.server.tokens import TokenSource
from servicekit.settings import ServiceSettings

logger = logging.getLogger(__name__)

# Handlers wait in threads for databases and disks more than they compute.
_HANDLER_THREADS = 32
_CONSUMER_WORKERS = 4


class Service:
    """Everything a service is made of, opened from its settings; `run` starts and stops it.

    Args:
        name: as in its package: ``datanet``.
        settings: what it was told.
        migrations_package: the package whose ``migrations`` its database follows; None for a service without database.

    Raises:
        StartupError: something it needs cannot be opened; the text is the one line to show.
    """

    def __init__(self, name: str, settings: ServiceSettings, migrations_package: str | None) -> None:
        self.name = name
        self.settings = settings
        telemetry.configure(name, settings)
        self._warnings = _warnings(settings)
        for warning in self._warnings:
            logger.warning("%s", warning["message"])
        issuer = None
        if settings.auth_mode == "development":
            issuer = DevelopmentIssuer(settings.state_dir, settings.auth_audience)
            issuer.ensure_keys()
        self.token = TokenSource(name, issuer, settings.token_file)
        """Gives this service's own token, for channels to other services."""
        keys = KeySet(settings.auth_jwks or key_source(settings.auth_issuer), settings.auth_keys_max_age_s)
        self.verifier = TokenVerifier(
            keys, settings.auth_issuer, settings.auth_audience, settings.auth_roles_claim
        )
        """Verifies callers' tokens; the gRPC door uses it by itself, an HTTP door should too."""
        self.limiter = Limiter(settings.rate_per_s, settings.rate_burst, settings.max_running_calls)
        """How much a principal may ask; the gRPC door uses it by itself, an HTTP door should too."""
        self._certificates: Certificates | None = None
        if settings.tls_cert is not None and settings.tls_key is not None:
            self._certificates = Certificates(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
        self.objects = ObjectStore(settings.object_store, cache=settings.state_dir / "cache" / "objects")
        self.event_log: EventLog = _open_event_log(settings.event_log)
        self._engine: Engine | None = None
        self._outbox: OutboxPublisher | None = None
        if migrations_package is not None:
            self._engine = open_engine(settings.database_url)
            migrate(self._engine, migrations_package)
            self._outbox = OutboxPublisher(self._engine, self.event_log)
        self.address: Address | None = None
        """Where it listens, while it runs."""
        self._registrations: list[Registration] = []
        self._http: tuple[Any, int] | None = None
        self._threads = Threads(self._fail)
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
        """What publishes its outbox; runs by itself."""
        if self._outbox is None:
            raise StartupError(f"service {self.name} has no database, so no outbox")
        return self._outbox

    @property
    def grpc_port(self) -> int:
        """The gRPC port, once it runs."""
        return int(self._running().grpc.rsplit(":", 1)[1])

    @property
    def metrics_port(self) -> int:
        """The port of /metrics, once it runs."""
        return int(self._running().metrics.rsplit(":", 1)[1])

    def add_servicer(self, add: Callable[[Any, Any], None], servicer: Any) -> None:
        """Serves a gRPC service: ``add_XServicer_to_server`` and an object with its coroutines."""
        self._registrations.append((add, servicer))

    def add_consumer(
        self, group: str, handlers: Mapping[str | Topic, Mapping[str, Handler]]
    ) -> ConsumerRunner:
        """Handles events: by topic, then by event type, ``handler(session, event)`` inside the inbox transaction."""
        try:
            runner = ConsumerRunner(
                self.event_log, self._engine, group, handlers, workers=self._consumer_workers()
            )
        except ValueError as error:
            raise StartupError(f"consumer {group}: {error}") from None
        self.add_thread(f"consumer {group}", runner.run)
        return runner

    def add_thread(self, name: str, run: Run) -> None:
        """Runs ``run(stop)`` in a thread until the service stops. If it ends before, the service ends too, with code 1."""
        self._threads.add(name, run)

    def add_references(self, references: References) -> None:
        """Publishes which stored objects this service needs, now and regularly, so that none of them is collected."""
        publisher = ReferencePublisher(self.objects, self.name, self.engine, references)
        self.add_thread("references", publisher.run)

    def add_http(self, app: Any, port: int) -> None:
        """Serves an ASGI application on ``grpc_host:port`` (0 picks a free port) in the same event loop."""
        self._http = (app, port)

    def run(self) -> int:
        """Serves until SIGTERM, SIGINT or `stop`, then drains. Returns 0, or 1 when a part of it failed.

        Raises:
            StartupError: a door cannot be opened.
        """
        loop = asyncio.new_event_loop()
        # Not asyncio.run: it waits without end for handler threads, also for one that hangs.
        loop.set_default_executor(HandlerThreads(_HANDLER_THREADS))
        try:
            loop.run_until_complete(self._run())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            self._close()
            loop.close()
        return 0 if self._failure is None else 1

    def stop(self) -> None:
        """Asks it to stop; from any thread, any number of times."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stopping.set)

    def wait_ready(self, timeout_s: float) -> bool:
        """Whether it accepts calls within that time; for whoever runs it in a thread."""
        return self._ready.wait(timeout_s)

    def _consumer_workers(self) -> int:
        """On SQLite more than one would only wait for each other's transactions, by looking again and again."""
        one_writer = self._engine is not None and self._engine.dialect.name == "sqlite"
        return self.settings.consumer_workers or (1 if one_writer else _CONSUMER_WORKERS)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._loop.add_signal_handler(number, self._stopping.set)
        host = self.settings.grpc_host
        certificates = self._certificates
        grpc_server = GrpcServer(
            self.settings, self.verifier, self.limiter, certificates, self._registrations
        )
        http_server = None
        if self._http is not None:
            https = None if certificates is None else certificates.https()
            http_server = HttpServer(self._http[0], host, self._http[1], https)
        operations = OperationsServer(
            host, self.settings.metrics_port, self._alive, self._readiness, self._warnings
        )
        try:
            if self._outbox is not None:
                self._publishing.add("outbox", self._outbox.run)
            self._publishing.start()
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
        """Callers first, then consumers, then the outbox: what the first two wrote is still published."""
        self._state = "draining"
        remove_address(self.settings.state_dir, self.name, os.getpid())
        grace_s = self.settings.grace_s
        doors = [grpc_server.stop(grace_s)]
        if http_server is not None:
            doors.append(http_server.stop(grace_s))
        await asyncio.gather(*doors)
        await asyncio.to_thread(self._threads.stop, grace_s)
        await asyncio.to_thread(self._publishing.stop, grace_s)

    def _close(self) -> None:
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
            self.name, os.getpid(), f"{shown}:{grpc_port}", f"{shown}:{metrics_port}", http
        )
        write_address(self.settings.state_dir, self.address)
        self._state = "ready"
        self._ready.set()
        ready = {
            "event": "ready",
            "service": self.name,
            "grpc": self.address.grpc,
            "metrics": self.address.metrics,
        }
        print(json.dumps({**ready, "http": http}), flush=True)

    def _running(self) -> Address:
        if self.address is None:
            raise StartupError(f"service {self.name} does not listen yet")
        return self.address

    def _fail(self, reason: str) -> None:
        """A part that must run does not: end, so that whoever supervises starts it anew, from a known state."""
        self._failure = self._failure or reason
        logger.critical("stopping: %s", reason)
        self.stop()

    def _alive(self) -> str | None:
        """Whether the event loop turns."""
        if self._loop is None or self._loop.is_closed():
            return "the event loop is closed"
        try:
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop).result(timeout=2)
        except TimeoutError:
            return "the event loop has not turned for 2 s"
        return None

    def _readiness(self) -> str | None:
        if self._state != "ready":
            return self._state
        if self._engine is not None:
            try:
                with self._engine.execution_options(sqlite_begin="DEFERRED").connect() as connection:
                    connection.execute(text("SELECT 1"))
            except SQLAlchemyError:
                return "the database does not answer"
        return None


def _open_event_log(url: str) -> EventLog:
    try:
        return open_event_log(url)
    except (ValueError, OSError) as error:
        raise StartupError(str(error)) from None


def _warnings(settings: ServiceSettings) -> list[dict[str, str]]:
    """What an operator should never run by accident: said at every start, and by /readyz for `openledger doctor`."""
    found = []
    if settings.auth_mode == "development":
        folder = settings.state_dir / "issuer"
        found.append(("development_issuer", f"DEVELOPMENT tokens: whoever reads {folder} may be anyone"))
    if settings.tls_cert is None:
        host = settings.grpc_host
        found.append(("plain_text", f"INSECURE transport: plain text, so only for this machine ({host})"))
    for name in settings.unknown_variables():
        found.append(("unknown_variable", f"environment variable {name} names no setting"))
    return [{"kind": kind, "message": message} for kind, message in found]
