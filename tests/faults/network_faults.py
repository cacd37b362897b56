"""The long form of tests/network: each client of another process behind a network that fails, with the real deadlines.

    python tests/faults/network_faults.py [--seconds S] [--modes hole,vanish] [--clients postgresql,ray]

Every client calls its peer again and again through a proxy. The fault strikes, lasts S seconds and ends; then the table says what
the calls did meanwhile, the longest of them, and how long after the fault the client worked again. `make faults` runs it first.
Exit code 1 when a client did not work 30 s after a fault, or left a thread behind.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from opentelemetry.sdk.trace import TracerProvider
from rich.console import Console
from rich.table import Table
from sqlalchemy import make_url
from web3.types import RPCEndpoint

from chain_relay.rpc import BoundedProvider
from openledger_testing.kafka_broker import KafkaBroker, fetch_jars
from openledger_testing.network_faults import FaultyProxy, Mode
from openledger_testing.trace_collector import Collector
from servicekit import heartbeats
from servicekit.auth import discovery
from servicekit.database import engine
from servicekit.eventlog import OutRecord, Topic, open_event_log
from servicekit.objects._bucket import Bucket
from servicekit.server.probes import database_problem
from servicekit.telemetry.export import Export
from servicekit.testing.s3 import s3_server
from servicekit.testing.services import postgresql_url
from trainer.jobs.ray_jobs import RayJobs

WHOLE_S = 30.0
_GIVE_UP_S = 120.0
_TOPIC = Topic("area.thing.v1", partitions=1)
_ANSWER = b'{"jsonrpc": "2.0", "id": 1, "result": "0x7a69", "status": "RUNNING", "keys": []}'
console = Console(highlight=False, width=130)


@dataclass(frozen=True)
class Client:
    """One way to call one peer; `call` raises when it fails."""

    name: str
    proxy: FaultyProxy
    call: Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one fault did to one client."""

    client: str
    mode: Mode
    outcomes: str
    longest_s: float
    recovered_s: float


def main() -> int:
    """Strikes every client with every fault, all clients at once, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long each fault lasts")
    parser.add_argument("--modes", default="delay,reset,hole,vanish,half-open,drip")
    parser.add_argument("--clients", default="postgresql,ray,chain,signing keys,s3,collector,kafka")
    arguments = parser.parse_args()
    rows: list[Row] = []
    with ExitStack() as open_:
        clients = _clients(open_, arguments.clients.split(","))
        for each in clients:
            each.call()
        threads = _threads()
        for mode in map(Mode, arguments.modes.split(",")):
            with ThreadPoolExecutor(len(clients)) as pool:
                rows += pool.map(lambda client, mode=mode: _strike(client, mode, arguments.seconds), clients)
        left = _threads() - threads
    console.print(_table(rows))
    named = {each.loop for each in heartbeats.troubles()}
    console.print(
        f"threads left behind: {left or 'none'}; still named as failing: {', '.join(named) or 'none'}"
    )
    return 1 if any(row.recovered_s > WHOLE_S for row in rows) else 0


def _strike(client: Client, mode: Mode, seconds: float) -> Row:
    outcomes: Counter[str] = Counter()
    longest_s = 0.0
    ended_at: list[float] = []

    def end() -> None:  # also while a call waits
        client.proxy.heal()
        ended_at.append(time.monotonic())

    client.proxy.strike(mode)
    threading.Timer(seconds, end).start()
    while True:
        called, was_over = time.monotonic(), bool(ended_at)
        try:
            client.call()
            outcome = "answered"
        except Exception as error:  # noqa: BLE001 - the table says which
            outcome = type(error).__name__
        now = time.monotonic()
        longest_s = max(longest_s, now - called)
        if not was_over:
            outcomes[outcome] += 1
        if ended_at and (outcome == "answered" or now - ended_at[0] > _GIVE_UP_S):
            break
        threading.Event().wait(0.2)
    ended = ended_at[0]
    said = ", ".join(f"{count} x {name}" for name, count in outcomes.most_common(3))
    return Row(client=client.name, mode=mode, outcomes=said, longest_s=longest_s, recovered_s=now - ended)


def _clients(open_: ExitStack, names: Sequence[str]) -> list[Client]:
    """Starts the peers and opens the clients that are named."""
    folder = Path(open_.enter_context(tempfile.TemporaryDirectory(prefix="openledger-network-")))
    makers: dict[str, Callable[[ExitStack, Path], Client]] = {
        "postgresql": _postgresql,
        "ray": _ray,
        "chain": _chain,
        "signing keys": _signing_keys,
        "s3": _s3,
        "collector": _collector,
        "kafka": _kafka,
    }
    return [makers[name](open_, folder) for name in names]


def _postgresql(open_: ExitStack, folder: Path) -> Client:
    url = open_.enter_context(postgresql_url())
    proxy = open_.enter_context(FaultyProxy(f"{make_url(url).query['host']}/.s.PGSQL.5432"))
    made = engine(f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres")
    open_.callback(made.dispose)

    def call() -> None:
        if (problem := database_problem(made)) is not None:
            raise OSError(problem)

    return Client("postgresql", proxy, call)


class _Peer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(200)
        self.send_header("content-length", str(len(_ANSWER)))
        self.end_headers()
        self.wfile.write(_ANSWER)

    do_POST = do_GET

    def log_message(self, *arguments: object) -> None:
        """Logs nothing."""


def _http(open_: ExitStack) -> tuple[FaultyProxy, str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Peer)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    open_.callback(server.shutdown)
    proxy = open_.enter_context(FaultyProxy(server.server_port, drip_every_s=0.2))
    return proxy, f"http://127.0.0.1:{proxy.port}"


def _ray(open_: ExitStack, folder: Path) -> Client:
    proxy, url = _http(open_)
    jobs = RayJobs(url)
    return Client("ray", proxy, lambda: jobs.status("a"))


def _chain(open_: ExitStack, folder: Path) -> Client:
    proxy, url = _http(open_)
    provider = BoundedProvider(url, 10.0)
    return Client("chain", proxy, lambda: provider.make_request(RPCEndpoint("eth_chainId"), []))


def _signing_keys(open_: ExitStack, folder: Path) -> Client:
    proxy, url = _http(open_)
    return Client("signing keys", proxy, lambda: discovery.fetch(url))


def _s3(open_: ExitStack, folder: Path) -> Client:
    server = open_.enter_context(s3_server())
    os.environ.update(server.environment)
    url = server.new_bucket()
    port = urlsplit(server.environment["AWS_ENDPOINT_URL"]).port
    assert port is not None
    proxy = open_.enter_context(FaultyProxy(port, drip_every_s=0.2))
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{proxy.port}"
    bucket = Bucket(url)
    bucket.write("objects/a", bytes(10_000))

    def call() -> bytes:
        with bucket.reaching(), bucket.open("objects/a") as file:
            return file.read()

    return Client("s3", proxy, call)


def _collector(open_: ExitStack, folder: Path) -> Client:
    collector = open_.enter_context(Collector())
    proxy = open_.enter_context(FaultyProxy(int(collector.endpoint.rsplit(":", 1)[1]), drip_every_s=0.2))
    export = Export(f"http://127.0.0.1:{proxy.port}")
    open_.callback(export.close, 1)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(export.processor)

    def call() -> None:
        with provider.get_tracer("network faults").start_as_current_span("work"):
            pass
        if not export.flush(30) or any(each.loop == "trace collector" for each in heartbeats.troubles()):
            raise OSError("spans were not taken")

    return Client("collector", proxy, call)


def _kafka(open_: ExitStack, folder: Path) -> Client:
    fetch_jars()
    proxy = open_.enter_context(FaultyProxy(0, drip_every_s=0.2))
    broker = KafkaBroker(folder / "kafka", advertised_port=proxy.port)
    proxy.target = broker.port
    open_.enter_context(broker)
    log = open_event_log(f"kafka://127.0.0.1:{proxy.port}")
    open_.callback(log.close)
    log.ensure_topics([_TOPIC])
    producer = log.producer()
    return Client("kafka", proxy, lambda: producer.send([OutRecord(_TOPIC.name, b"k", b"v")]))


def _threads() -> set[str]:
    """Names of the threads that are not the proxies' or the peers'."""
    others = ("faulty proxy", "ThreadPoolExecutor", "process_request", "flush of spans", "asyncio")
    names = {
        re.sub(r"\d+", "N", each.name) for each in threading.enumerate()
    }  # a client may have replaced its own
    return {name for name in names if not any(other in name for other in others)}


def _table(rows: Sequence[Row]) -> Table:
    table = Table(title="network faults", title_justify="left", header_style="bold")
    for label in ("client", "fault", "calls during the fault", "longest call, s", "works after, s"):
        table.add_column(label, justify="right" if label.endswith("s") and "," in label else "left")
    for row in sorted(rows, key=lambda row: (row.client, row.mode.value)):
        table.add_row(
            row.client, row.mode.value, row.outcomes, f"{row.longest_s:.1f}", f"{row.recovered_s:.1f}"
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
