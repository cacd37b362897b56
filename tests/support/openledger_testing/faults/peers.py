"""Every process that the services of a platform call, each behind a network of its own that can fail."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from openledger_client.services import CHAIN_RELAY, TRAINER
from openledger_ops.up.ports import choose_ports
from openledger_testing.kafka_broker import KafkaBroker, fetch_jars
from openledger_testing.network_faults import FaultyProxy
from openledger_testing.postgresql import Postgresql
from openledger_testing.trace_collector import Collector
from servicekit.errors import StartupError
from servicekit.private import folder as private_folder
from servicekit.testing.s3 import s3_server

_FIRST_PORT, _LAST_PORT, _STEP = 21_000, 30_000, 50
_DRIP_S = 0.2


class Peers:
    """Started before the platform, which gets their proxies' addresses by `settings`.

    Attributes:
        proxies: by peer.
        settings: environment of the services.
        event_log: the event log's URL.
        port_base: of the platform; its chain and Ray are at ports that follow from it.
    """

    def __init__(self, stack: ExitStack, folder: Path, state: Path) -> None:
        self.port_base = _free_ports()
        self.postgresql = stack.enter_context(Postgresql())
        self.proxies: dict[str, FaultyProxy] = {"PostgreSQL": self.postgresql.network}
        self.kafka = self._kafka(stack, folder)
        self.event_log = f"kafka://127.0.0.1:{self.proxies['Kafka'].port}"
        ports = choose_ports(self.port_base)
        self._stranger = stack.enter_context(_http_server(_Stranger))
        self.settings = self.postgresql.urls() | {
            "OPENLEDGER_OBJECT_STORE": self._s3(stack),
            "OPENLEDGER_OTLP_ENDPOINT": self._proxied(stack, "trace collector", _collector(stack)),
            # The development issuer's keys, as an issuer elsewhere publishes them.
            "OPENLEDGER_AUTH_JWKS": self._issuer(stack, state),
            "OPENLEDGER_AUTH_KEYS_MAX_AGE_S": "2",
            TRAINER.variable("ray_address"): self._proxied(stack, "Ray", ports.ray),
            CHAIN_RELAY.variable("rpc_url"): self._proxied(stack, "chain", ports.anvil),
        }

    def replace_by_a_stranger(self, peer: str) -> None:
        """Lets another process have the peer's address, until `heal`: it speaks HTTP, and has nothing at any path."""
        proxy = self.proxies[peer]
        self._target = proxy.target
        proxy.replace(self._stranger)

    def heal(self, peer: str) -> None:
        """Ends the fault, whichever it is."""
        proxy = self.proxies[peer]
        if proxy.target == self._stranger:
            proxy.replace(self._target)
        proxy.heal()

    def _proxied(self, stack: ExitStack, peer: str, port: int) -> str:
        self.proxies[peer] = stack.enter_context(FaultyProxy(port, drip_every_s=_DRIP_S))
        return f"http://127.0.0.1:{self.proxies[peer].port}"

    def _kafka(self, stack: ExitStack, folder: Path) -> KafkaBroker:
        fetch_jars()
        self._proxied(stack, "Kafka", 0)
        proxy = self.proxies["Kafka"]
        broker = KafkaBroker(folder / "kafka", advertised_port=proxy.port)
        proxy.target = broker.port
        return stack.enter_context(broker)

    def _s3(self, stack: ExitStack) -> str:
        server = stack.enter_context(s3_server())
        os.environ.update(server.environment)  # the platform's programs inherit the access
        url = server.new_bucket()
        port = urlsplit(server.environment["AWS_ENDPOINT_URL"]).port
        assert port is not None
        os.environ["AWS_ENDPOINT_URL"] = self._proxied(stack, "S3", port)
        return url

    def _issuer(self, stack: ExitStack, state: Path) -> str:
        served = private_folder(state / "issuer")
        port = stack.enter_context(_http_server(partial(_Keys, directory=str(served))))
        return self._proxied(stack, "signing keys", port) + "/jwks.json"


class _Stranger(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(404)
        self.send_header("content-length", "0")
        self.end_headers()

    do_POST = do_PUT = do_HEAD = do_DELETE = do_GET

    def log_message(self, *arguments: object) -> None:
        """Logs nothing."""


class _Keys(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Logs nothing."""


@contextmanager
def _http_server(handler: Any) -> Iterator[int]:
    """Yields the port of a server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def _collector(stack: ExitStack) -> int:
    return int(stack.enter_context(Collector()).endpoint.rsplit(":", 1)[1])


def _free_ports() -> int:
    """Returns the first of so many free ports in a row as a platform needs."""
    for base in range(_FIRST_PORT, _LAST_PORT, _STEP):
        try:
            choose_ports(base)
        except StartupError:
            continue
        return base
    raise StartupError(f"no free ports between {_FIRST_PORT} and {_LAST_PORT}")
