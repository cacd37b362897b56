"""Without a token nobody makes a service hold large requests, whichever method is called: own, health, reflection, unknown."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any

import grpc
import pytest

from openledger_testing.all_services import AllServices

pytestmark = [pytest.mark.server, pytest.mark.slow]

AT_ONCE = 8
MAX_GROWTH_MB = 64
"""All calls at once would take 120 MB."""
LARGE = b"\x0a\x80\x80\xc0\x07" + bytes(15 << 20)
BY_EVERYONE = (
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/no.such.Service/Method",
)
REFUSALS = {
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED,
}


def peak_mb(pid: int) -> float:
    """Returns the most memory that a process has had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def outcome(address: str, method: str) -> grpc.StatusCode:
    """Returns the status of one call with a large request, on a connection of its own."""
    options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options=options) as over:
        try:
            list(over.stream_stream(method)(iter([LARGE]), timeout=300))
        except grpc.RpcError as error:
            failed: Any = error
            return grpc.StatusCode(failed.code())
    return grpc.StatusCode.OK


def methods(platform: AllServices, service: str) -> Iterator[str]:
    for method in platform.served()[service]:
        yield f"/{method.containing_service.full_name}/{method.name}"
    for name in BY_EVERYONE:
        # The same code in all services: as many calls as fit at once in one of them.
        yield from [name] * (AT_ONCE if service == "datanet" else 1)


def test_large_requests_without_a_token_are_refused_before_they_are_held(platform: AllServices) -> None:
    for service, process in platform.services.items():
        walked = list(methods(platform, service))
        before_mb = peak_mb(process.process.pid)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = dict(zip(walked, pool.map(outcome, repeat(process.grpc), walked), strict=True))
        assert set(found.values()) <= REFUSALS, found
        assert peak_mb(process.process.pid) - before_mb < MAX_GROWTH_MB, service
