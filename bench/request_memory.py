"""How much memory a service gives to large requests, without a token and with one: the figures of docs/security.md.

    python bench/request_memory.py [--calls 60] [--mib 15] [--principals 0] [--method CreateDatanet]
    python bench/request_memory.py --method /grpc.health.v1.Health/Check

Starts datanet on an empty state folder, sends calls with large requests, all at once, each on a connection of its own, and
prints the growth of the service's memory. ``--principals 3`` gives the calls the tokens of three curators, in turns; 0 gives
them none. Exits with 1 above 256 MB, or when a call ends another way than UNAUTHENTICATED, INVALID_ARGUMENT or
RESOURCE_EXHAUSTED.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import grpc

from servicekit.auth import DevelopmentIssuer

MAX_GROWTH_MB = 256
SERVICE = "/openledger.datanet.v1.DatanetService/"
REFUSALS = {"UNAUTHENTICATED", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}
OPTIONS = [("grpc.max_send_message_length", 64 << 20), ("grpc.use_local_subchannel_pool", 1)]


def memory_mb(pid: int, key: str) -> float:
    """Returns a line of the process's status: VmRSS now, VmHWM at most."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


async def outcome(address: str, method: str, body: bytes, token: str) -> str:
    """Returns the status of one call."""
    metadata = [("authorization", f"Bearer {token}")] if token else []
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        try:
            path = method if method.startswith("/") else SERVICE + method
            await channel.unary_unary(path)(body, timeout=300, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            return error.code().name
    return "OK"


async def outcomes(address: str, method: str, calls: int, body: bytes, tokens: Sequence[str]) -> Counter[str]:
    """Returns how many calls ended with each status."""
    by_turns = (tokens[number % len(tokens)] for number in range(calls))
    return Counter(await asyncio.gather(*(outcome(address, method, body, token) for token in by_turns)))


def main() -> int:
    """Prints statuses and memory; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=60)
    parser.add_argument("--mib", type=float, default=15)
    parser.add_argument("--principals", type=int, default=0)
    parser.add_argument("--method", default="CreateDatanet")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as state:
        command = [sys.executable, "-m", "datanet"]
        environment = {**os.environ, "OPENLEDGER_STATE_DIR": state, "OPENLEDGER_AUTH_MODE": "development"}
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as service:
            assert service.stdout is not None
            address = json.loads(service.stdout.readline())["grpc"]
            issuer = DevelopmentIssuer(Path(state), "openledger")
            tokens = [issuer.mint(f"curator{number}", ["curator"]) for number in range(asked.principals)]
            body = bytes(int(asked.mib * (1 << 20)))
            before_mb = memory_mb(service.pid, "VmRSS")
            found = asyncio.run(outcomes(address, asked.method, asked.calls, body, tokens or [""]))
            most_mb = memory_mb(service.pid, "VmHWM")
            service.terminate()
    print(f"{dict(found)}; memory {before_mb:.0f} -> {most_mb:.0f} MB at most")
    return 0 if most_mb - before_mb < MAX_GROWTH_MB and set(found) <= REFUSALS else 1


if __name__ == "__main__":
    raise SystemExit(main())
