"""The gRPC server: limits, transport, health, reflection, and the pipeline before every handler."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from servicekit.auth import TokenVerifier
from servicekit.errors import StartupError
from servicekit.server.access import access_rules
from servicekit.server.certificates import Certificates
from servicekit.server.health import Health
from servicekit.server.interceptors.authentication import Authentication
from servicekit.server.interceptors.deadline import Deadline
from servicekit.server.interceptors.errors import errors
from servicekit.server.interceptors.metrics import metrics
from servicekit.server.interceptors.permission import permission
from servicekit.server.interceptors.rate import rate_limit
from servicekit.server.interceptors.trace import trace
from servicekit.server.interceptors.validation import Validation
from servicekit.server.limiter import Limiter
from servicekit.server.pipeline import Pipeline
from servicekit.settings import ServiceSettings

MAX_RECEIVE_BYTES = 16 << 20
"""Largest message on the wire; above it gRPC itself ends the call with RESOURCE_EXHAUSTED and no details. Requests above 4 MiB
are refused by the pipeline; a record above 1 MiB on a stream by datanet's own rule, which can only speak if it arrives."""

MAX_SEND_BYTES = 4 << 20
"""Largest answer: what every gRPC client takes without being told."""

Registration = tuple[Callable[[Any, Any], None], Any]
"""``add_XServicer_to_server`` and the servicer."""

# A token of 16 KiB and a trace fit; a client can make us hold no more than this before it said who it is.
_MAX_METADATA_BYTES = 32 << 10

_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


class GrpcServer:
    """Built and started inside a running event loop.

    Raises:
        StartupError: a method without a permission, a rule that does not compile, a port in use.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        verifier: TokenVerifier,
        limiter: Limiter,
        certificates: Certificates | None,
        registrations: Sequence[Registration],
    ) -> None:
        self._settings = settings
        self._certificates = certificates
        names = _service_names(registrations)
        infrastructure = (_HEALTH, reflection.SERVICE_NAME)
        validation = Validation()
        _compile_rules(names, validation)
        self._authentication = Authentication(verifier)
        deadline = Deadline(settings.default_deadline_s, settings.max_deadline_s)
        around = (trace, metrics, errors, self._authentication, rate_limit(limiter), permission, deadline)
        pipeline = Pipeline(access_rules([*names, *infrastructure]), around, validation)
        self._server = grpc.aio.server(interceptors=[pipeline], options=_options(settings))
        self._health = Health()
        self._names = names
        for add, servicer in registrations:
            add(servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection([*names, *infrastructure], self._server)
        self.port = self._bind()

    async def start(self) -> None:
        """Accepts calls and says SERVING."""
        for name in ("", *self._names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Says NOT_SERVING, takes no new calls, gives running ones ``grace_s`` and cancels those that remain."""
        await self._health.stop()
        await self._server.stop(grace_s)
        self._authentication.close()

    def _bind(self) -> int:
        host, port = self._settings.grpc_host, self._settings.grpc_port
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        _probe(host, port)
        try:
            if self._certificates is None:
                return self._server.add_insecure_port(address)
            return self._server.add_secure_port(address, self._certificates.credentials())
        except RuntimeError:
            raise StartupError(
                f"cannot listen for gRPC on {address}: the port is in use or not ours"
            ) from None


def _probe(host: str, port: int) -> None:
    """Asks the system first: it says what is wrong, gRPC says lines of its own and then only that something is."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise StartupError(f"cannot listen for gRPC on {host}:{port}: {error.strerror}") from None


def _options(settings: ServiceSettings) -> list[tuple[str, Any]]:
    return [
        # On Linux two servers would otherwise share a port, and each get half of the calls.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
        ("grpc.max_send_message_length", MAX_SEND_BYTES),
        ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
        ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_connection_age_ms", int(settings.max_connection_age_s * 1000)),
        ("grpc.max_connection_age_grace_ms", int(settings.max_connection_age_grace_s * 1000)),
    ]


class _Names:
    """Stands for a server while servicers are added, to learn which services they implement."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        self.names += [handler.service_name() for handler in handlers]

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Any]) -> None:
        """The same handlers again, in gRPC's newer form."""


def _service_names(registrations: Sequence[Registration]) -> list[str]:
    names = _Names()
    for add, servicer in registrations:
        add(servicer, names)
    return names.names


def _compile_rules(services: Sequence[str], validation: Validation) -> None:
    pool = descriptor_pool.Default()
    for name in services:
        for method in pool.FindServiceByName(name).methods:
            validation.compile(message_factory.GetMessageClass(method.input_type))
