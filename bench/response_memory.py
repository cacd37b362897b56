"""How much memory a service gives to responses that their callers do not read: the figures of docs/security.md.

    python bench/response_memory.py [--calls 400] [--principals 4] [--method ListRecords]

Starts datanet on an empty state folder, contributes and seals 3 MB of records, asks for all of them in many calls at once, and
reads nothing. Prints the growth of the service's memory, and what a caller that reads is answered meanwhile. Exits with 1
above 512 MB, or when that caller is not answered. ``--method DownloadSnapshot`` asks for streams.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
from openledger.common.v1.list_pb2 import VIEW_FULL
from openledger.datanet.v1 import datanet_pb2 as pb

from openledger_client import sealing
from openledger_client.addresses import Addresses
from openledger_client.client import Client
from servicekit.auth import DevelopmentIssuer
from servicekit.auth.development_token import DevelopmentToken

MAX_GROWTH_MB = 512
"""Most of it is of pages that are being made; without a bound 300 calls take 2.7 GB."""
SERVICE = "/openledger.datanet.v1.DatanetService/"
PARENT = "datanets/large"
RECORDS, RECORD_BYTES = 90, 32_000
WORDS = (
    "actor group malware implant loader operator server domain account service registry driver script macro payload beacon"
    " tunnel proxy ticket memory process thread kernel volume backup archive sample report uses creates deletes encrypts"
    " collects uploads hides renames schedules dumps queries moves disables quickly silently often twice before after during"
)
READER_S = 600.0
OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.http2.bdp_probe", 0),  # the client takes 64 KiB of each answer
    ("grpc.max_receive_message_length", 64 << 20),
]


def memory_mb(pid: int, key: str) -> float:
    """Returns a line of the process's status: VmRSS now, VmHWM at most."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


def prepare(client: Client) -> str:
    """Contributes the records, seals them, and returns the snapshot's name."""
    fields = [
        pb.RecordSchema.Field(name="text", required=True, max_length=60_000),
        pb.RecordSchema.Field(name="kind", required=True, max_length=20),
    ]
    schema = pb.RecordSchema(fields=fields, prompt_template="{text}", completion_template=" {kind}")
    policy = pb.QualityPolicy(contamination_check=pb.CONTAMINATION_CHECK_OFF)
    datanet = pb.Datanet(display_name="Large", licence="CC0-1.0", schema=schema, policy=policy)
    client.datanet.CreateDatanet(pb.CreateDatanetRequest(datanet_id="large", datanet=datanet))
    contributor = pb.Contributor(principal="olga", display_name="Olga", consent_licence="CC0-1.0")
    client.datanet.RegisterContributor(
        pb.RegisterContributorRequest(parent=PARENT, contributor_id="olga", contributor=contributor)
    )
    generator = random.Random(1)

    def requests() -> Any:
        for number in range(1, RECORDS + 1):
            words = generator.choices(WORDS.split(), k=RECORD_BYTES // 7)
            content = json.dumps({"text": " ".join(words), "kind": "word"}).encode()
            yield pb.ContributeRequest(
                contributor=f"{PARENT}/contributors/olga", sequence=number, content=content
            )

    states = Counter(each.rule for each in client.datanet.Contribute(requests()))
    if states != {"": RECORDS}:
        raise SystemExit(f"not all records were accepted: {states}")
    return str(sealing.seal(client.datanet, pb.SealSnapshotRequest(parent=PARENT)).name)


class Unread:
    """Calls whose responses nobody reads."""

    def __init__(self, address: str, method: str, body: bytes) -> None:
        self._address = address
        self._path = SERVICE + method
        self._body = body
        self._channels: list[grpc.aio.Channel] = []
        self._calls: list[Any] = []

    async def open(self, calls: int, tokens: Sequence[str]) -> None:
        """Begins so many calls, each on a connection of its own, and waits until most have been answered as far as they are."""
        for number in range(calls):
            channel = grpc.aio.insecure_channel(self._address, options=OPTIONS)
            self._channels.append(channel)
            metadata = [("authorization", f"Bearer {tokens[number % len(tokens)]}")]
            # On the wire a unary response is a stream of one message; a stream is read only when it is asked for.
            self._calls.append(channel.unary_stream(self._path)(self._body, timeout=600, metadata=metadata))
        await asyncio.gather(*(_begun(call) for call in self._calls))

    async def ended(self) -> Counter[str]:
        """Returns the statuses of the calls that have ended."""
        return Counter([(await call.code()).name for call in self._calls if call.done()])

    async def close(self) -> None:
        """Ends them."""
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*(channel.close() for channel in self._channels))


async def _begun(call: Any) -> None:
    try:
        await call.initial_metadata()
    except (grpc.aio.AioRpcError, asyncio.CancelledError):
        return


async def measure(
    asked: argparse.Namespace, address: str, body: bytes, tokens: Sequence[str], pid: int
) -> tuple[float, float]:
    """Returns the most memory while the calls are open, and how long a caller that reads waited; both after a while."""
    unread = Unread(address, asked.method, body)
    await unread.open(asked.calls, tokens[:-1])
    begun = time.monotonic()
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        metadata = [("authorization", f"Bearer {tokens[-1]}")]
        async for _ in channel.unary_stream(SERVICE + asked.method)(
            body, timeout=READER_S, metadata=metadata
        ):
            pass
    waited_s = time.monotonic() - begun
    most_mb = memory_mb(pid, "VmHWM")
    print(f"ended: {dict(await unread.ended())}")
    await unread.close()
    return most_mb, waited_s


def run(asked: argparse.Namespace, state: Path, address: str, pid: int) -> tuple[float, float, float]:
    """Returns the memory before and at most, in MB, and how long a caller that reads waited, in seconds."""
    owner = DevelopmentToken(state, "olga", ("curator", "contributor"))
    with Client(Addresses(state_dir=state), token=owner) as client:
        snapshot = prepare(client)
    issuer = DevelopmentIssuer(state, "openledger")
    tokens = [issuer.mint(f"auditor{number}", ["auditor"]) for number in range(asked.principals + 1)]
    requests = {
        "ListRecords": pb.ListRecordsRequest(parent=PARENT, page_size=1000, view=VIEW_FULL),
        "DownloadSnapshot": pb.DownloadSnapshotRequest(name=snapshot, part=pb.SNAPSHOT_PART_RECORDS),
    }
    before_mb = memory_mb(pid, "VmRSS")
    body = requests[asked.method].SerializeToString()
    return before_mb, *asyncio.run(measure(asked, address, body, tokens, pid))


def main() -> int:
    """Prints memory; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=400)
    parser.add_argument("--principals", type=int, default=4)
    parser.add_argument("--method", default="ListRecords", choices=["ListRecords", "DownloadSnapshot"])
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        command = [sys.executable, "-m", "datanet"]
        environment = {**os.environ, "OPENLEDGER_STATE_DIR": folder, "OPENLEDGER_AUTH_MODE": "development"}
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as service:
            assert service.stdout is not None
            try:
                address = json.loads(service.stdout.readline())["grpc"]
                before_mb, most_mb, waited_s = run(asked, state, address, service.pid)
            finally:
                service.terminate()
    print(
        f"{asked.calls} calls that read nothing: memory {before_mb:.0f} -> {most_mb:.0f} MB at most;"
        f" a caller that reads was answered in {waited_s:.1f} s"
    )
    return 0 if most_mb - before_mb < MAX_GROWTH_MB else 1


if __name__ == "__main__":
    raise SystemExit(main())
