"""Whether the platform's endpoints answer."""

from __future__ import annotations

import socket

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from openledger_client.tls import Tls
from servicekit.http_client import HttpClient, HttpError

_client = HttpClient(2.0)


def serving(address: str, timeout_s: float = 1.0, tls: Tls | None = None) -> bool:
    """Whether the gRPC health service at an address says SERVING; plain text without `tls`."""
    opened = (
        grpc.insecure_channel(address) if tls is None else grpc.secure_channel(address, tls.credentials())
    )
    with opened as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=timeout_s
            )
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def listens(port: int) -> bool:
    """Whether a port of this machine accepts connections."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def answers(url: str) -> bool:
    """Whether an HTTP server is there. A refusal because a token is missing is an answer too."""
    try:
        _client.exchange("GET", url)
    except HttpError:
        return False
    return True
