"""Whether every door of the platform answers."""

from __future__ import annotations

import socket

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from openledger_cli.connection import SERVICES, address_file
from openledger_cli.up.plan import Plan
from servicekit.client import Tls


def pending_doors(plan: Plan) -> list[str]:
    """The doors that do not answer yet, by name; empty when the platform is ready."""
    missing = [] if _listens(plan.ports.anvil) else ["anvil"]
    if not _answers(plan.ray_address):
        missing.append("ray")
    for service in SERVICES:
        written = address_file(plan.state_dir, service).exists()
        if not written or not serving(f"127.0.0.1:{plan.ports.grpc[service]}"):
            missing.append(service)
    return missing


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


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _answers(url: str) -> bool:
    """Whether an HTTP server is there: a refusal for want of a token is an answer too."""
    try:
        httpx.get(url, timeout=2.0, trust_env=False)
    except httpx.HTTPError:
        return False
    return True
