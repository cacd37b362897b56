"""The gRPC server: limits, transport, health, reflection, and the pipeline before every handler."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from servicekit.errors import StartupError
from servicekit.server.access import access_rules
from servicekit.server.certificates import Certificates
from servicekit.server.descriptors import for_grpc
from servicekit.server.grpc_calls import GrpcAdapter
from servicekit.server.health import Health
from servicekit.server.pipeline import Pipeline
from servicekit.server.request_memory import MAX_RECEIVE_BYTES
from servicekit.server.steps.body import MAX_HEADER_BYTES
from servicekit.server.steps.validation import Validation
from servicekit.settings import ServiceSettings

MAX_SEND_BYTES = 4 << 20
"""Largest response: the default limit of every gRPC client."""

Registration = tuple[Callable[[Any, Any], None], Any]
"""``add_XServicer_to_server`` and the servicer."""

_HANDSHAKE_MS = 5_000

_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


class GrpcServer:
    """Built and started inside a running event loop.

    Raises:
        StartupError: a method declares no access rule, a validation rule does not compile, or the port is in use.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        pipeline: Pipeline,
        certificates: Certificates | None,
        registrations: Sequence[Registration],
    ) -> None:
        self._settings = settings
        self._certificates = certificates
        names = _service_names(registrations)
        infrastructure = (_HEALTH, reflection.SERVICE_NAME)
        validation = Validation()
        _compile_rules(names, validation)
        rules = access_rules([*names, *infrastructure], public_reflection=settings.public_reflection)
        adapter = GrpcAdapter(rules, pipeline, validation)
        self._server = grpc.aio.server(interceptors=[adapter], options=_options(settings))
        self._health = Health()
        self._names = names
        for add, servicer in registrations:
            add(servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection([*names, *infrastructure], self._server)
        self.port = self._bind()

    async def start(self) -> None:
        """Reports SERVING and accepts calls."""
        for name in ("", *self._names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Reports NOT_SERVING, refuses new calls, waits ``grace_s`` for running ones, and then cancels the rest."""
        await self._health.stop()
        await self._server.stop(grace_s)

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
                f"cannot listen for gRPC on {address}: the port is in use or not permitted"
            ) from None


def _probe(host: str, port: int) -> None:
    """Binds the port once before gRPC does, because the system's error names the reason and gRPC's does not."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise StartupError(f"cannot listen for gRPC on {host}:{port}: {error.strerror}") from None


def _options(settings: ServiceSettings) -> list[tuple[str, Any]]:
    return [
        # On Linux two servers would otherwise share a port, and each would get half of the calls.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
        ("grpc.max_send_message_length", MAX_SEND_BYTES),
        ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
        # The probe would raise how much of a request is buffered before it is admitted from 64 KiB to all of it.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.max_metadata_size", MAX_HEADER_BYTES),
        # Between a soft limit and this one, gRPC refuses some at random.
        ("grpc.absolute_max_metadata_size", MAX_HEADER_BYTES),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # A connection that does not begin to speak HTTP/2 is closed; it has a descriptor, and needs no token.
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
        ("grpc.max_allowed_incoming_connections", for_grpc(settings.max_http_connections)),
        # Also ends connections that never finish the headers of a call: keepalive and the handshake's time do not.
        ("grpc.max_connection_idle_ms", int(settings.max_connection_idle_s * 1000)),
        ("grpc.max_connection_age_ms", int(settings.max_connection_age_s * 1000)),
        ("grpc.max_connection_age_grace_ms", int(settings.max_connection_age_grace_s * 1000)),
    ]


class _Names:
    """Takes the place of a server while servicers are added, to collect the names of their services."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        self.names += [handler.service_name() for handler in handlers]

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Any]) -> None:
        """Ignores the same handlers in gRPC's newer form."""


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
