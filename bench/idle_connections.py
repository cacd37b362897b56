"""Opens thousands of idle connections to one service from two addresses, and measures whether it still answers.

    python bench/idle_connections.py [--connections 20000]

Half of them go to the HTTP server and half to the gRPC server, from 127.0.0.2 and 127.0.0.3. Meanwhile a client on 127.0.0.1
opens a new connection to each server for every call. Prints the longest time of a
call while connections are opened and after that, the calls that failed, and the log's size.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from openledger_ops.health import serving
from servicekit.server.descriptors import raise_descriptor_limit

PROGRAM = """
import sys
from typing import ClassVar
from openledger.datanet.v1 import datanet_pb2_grpc
from starlette.responses import JSONResponse, PlainTextResponse
from servicekit.server import Service, serve
from servicekit.server.http_routes import get
from servicekit.settings import ServiceSettings

class DatanetSettings(ServiceSettings):
    service: ClassVar[str] = "datanet"

class Errors:
    def response(self, error, status):
        return PlainTextResponse(error.message, status)
    def event(self, error):
        return b""

async def hello(request):
    return PlainTextResponse("hello")

def build(settings):
    service = Service("datanet", settings, None)
    service.add_servicer(datanet_pb2_grpc.add_DatanetServiceServicer_to_server, datanet_pb2_grpc.DatanetServiceServicer())
    service.add_http([get("/", hello, public=True)], Errors(), 0)
    return service

sys.exit(serve(DatanetSettings, build))
"""

ATTACK = """
import socket, sys
address, count, ports = sys.argv[1], int(sys.argv[2]), [int(each) for each in sys.argv[3:]]
opened = []
for number in range(count):
    connection = socket.socket()
    connection.settimeout(5)
    try:
        connection.bind((address, 0))
        connection.connect(("127.0.0.1", ports[number % len(ports)]))
        opened.append(connection)
    except OSError:
        connection.close()
print(len(opened), flush=True)
sys.stdin.read()
"""


def main() -> None:
    """Runs the attack and prints what a client saw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=20_000)
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="how long to measure after the last connection"
    )
    arguments = parser.parse_args()
    raise_descriptor_limit()
    with tempfile.TemporaryDirectory(prefix="openledger-idle-") as folder:
        log = Path(folder) / "log"
        with log.open("w") as errors:
            service = subprocess.Popen(
                [sys.executable, "-c", PROGRAM],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "OPENLEDGER_STATE_DIR": folder, "OPENLEDGER_AUTH_MODE": "development"},
            )
        assert service.stdout is not None
        ready = json.loads(service.stdout.readline())
        ports = [int(ready[name].rsplit(":", 1)[1]) for name in ("http", "grpc")]
        attackers = [
            subprocess.Popen(
                [sys.executable, "-c", ATTACK, address, str(arguments.connections // 2), *map(str, ports)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for address in ("127.0.0.2", "127.0.0.3")
        ]
        took: dict[str, list[float]] = {}
        failed = {"http": 0, "grpc": 0}
        most_open = 0
        end = None
        while end is None or time.monotonic() < end:
            if end is None and all(_has_output(each) for each in attackers):
                end = time.monotonic() + arguments.seconds
            for kind, call in (("http", _http), ("grpc", serving)):
                begun = time.monotonic()
                good = call(ready[kind])
                when = "while they open" if end is None else "after that"
                took.setdefault(f"{kind} {when}", []).append(time.monotonic() - begun)
                failed[kind] += not good
            most_open = max(most_open, sum(1 for _ in Path(f"/proc/{service.pid}/fd").iterdir()))
            time.sleep(0.05)
        for each in attackers:
            each.kill()
        service.send_signal(signal.SIGTERM)
        service.wait(60)
        print(
            json.dumps(
                {
                    "connections": arguments.connections,
                    "calls": {kind: len(times) for kind, times in took.items()},
                    "longest_s": {kind: round(max(times), 3) for kind, times in took.items()},
                    "failed": failed,
                    "most_descriptors": most_open,
                    "log_bytes": log.stat().st_size,
                }
            )
        )


def _has_output(process: subprocess.Popen[str]) -> bool:
    import select

    return bool(select.select([process.stdout], [], [], 0)[0])


def _http(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read() == b"hello"
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    main()
