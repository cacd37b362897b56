"""How long a read waits while streams of hostile records are judged: the figure of docs/data.md.

    python bench/fairness.py [--streams 34] [--seconds 10]

Starts datanet on an empty state folder. Each stream, of one contributor, sends records of 64 KiB that take the rules the
longest; meanwhile one caller reads the Datanet, again and again. Prints the slowest read and how soon the service is idle after
all streams are cancelled. Exits with 1 when a read takes more than a second, or the work outlives its callers by more than that.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from openledger.datanet.v1 import datanet_pb2 as pb
from openledger.datanet.v1.datanet_pb2_grpc import DatanetServiceStub

from openledger_client.channels import sync_channel
from openledger_testing.hostile_texts import UNITS, text_of
from servicekit.auth import DevelopmentIssuer

MAX_S = 1.0
NAME = "datanets/fair"
KIND = "one card-like row"
PROSE = "The group used a tool to download more tools for later use."


class Rig:
    """A service in a process of its own, and stubs for principals."""

    def __init__(self, state: Path) -> None:
        environment = {
            **os.environ,
            "OPENLEDGER_STATE_DIR": str(state),
            "OPENLEDGER_AUTH_MODE": "development",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "datanet"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        ready = json.loads(self.process.stdout.readline())
        self._grpc, self._metrics = ready["grpc"], ready["metrics"]
        self._issuer = DevelopmentIssuer(state, "openledger")
        self.owner = self.stub("owner", "curator")
        self.owner.CreateDatanet(pb.CreateDatanetRequest(datanet_id="fair", datanet=_datanet()))

    def stub(self, principal: str, role: str) -> Any:
        """Returns a stub of the API."""
        return DatanetServiceStub(sync_channel(self._grpc, self._issuer.mint(principal, [role])))

    def stream(self, number: int) -> grpc.Call:
        """Registers a contributor and starts its stream of hostile records."""
        contributor = pb.Contributor(principal=f"hostile-{number}", consent_licence="CC0-1.0")
        request = pb.RegisterContributorRequest(
            parent=NAME, contributor_id=f"c{number}", contributor=contributor
        )
        name = self.owner.RegisterContributor(request).name
        note = text_of(UNITS[KIND], 65_000)

        def requests() -> Iterator[pb.ContributeRequest]:
            sent = 0
            while True:
                content = json.dumps({"text": PROSE, "note": f"{note} {number} {sent}"}).encode()
                yield pb.ContributeRequest(contributor=name, sequence=sent, content=content)
                sent += 1

        call: grpc.Call = self.stub(f"hostile-{number}", "contributor").Contribute(requests())
        return call

    def judging(self) -> float:
        """Returns how much judging there is to do, in threads' worth."""
        with urllib.request.urlopen(f"http://{self._metrics}/metrics", timeout=10) as page:
            lines = page.read().decode().splitlines()
        wanted = 'openledger_saturation_ratio{resource="judging"}'
        return float(next(line for line in lines if line.startswith(wanted)).split()[-1])


def _datanet() -> pb.Datanet:
    fields = [pb.RecordSchema.Field(name="text", required=True), pb.RecordSchema.Field(name="note")]
    schema = pb.RecordSchema(fields=fields, prompt_template="{text}", completion_template=" {text}")
    policy = pb.QualityPolicy(contamination_check=pb.CONTAMINATION_CHECK_OFF)
    return pb.Datanet(licence="CC0-1.0", schema=schema, policy=policy)


def measure(rig: Rig, streams: int, seconds: float) -> tuple[list[float], float]:
    """Returns the time of each read in seconds, and that until the work ended after the streams were cancelled."""
    calls = [rig.stream(number) for number in range(streams)]
    reader = rig.stub("reader", "curator")
    pause = threading.Event()
    while rig.judging() < 1:
        pause.wait(0.05)
    times: list[float] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        begun = time.monotonic()
        reader.GetDatanet(pb.GetDatanetRequest(name=NAME), timeout=60)
        times.append(time.monotonic() - begun)
        pause.wait(0.05)
    for call in calls:
        call.cancel()
    cancelled = time.monotonic()
    while rig.judging() > 0 and time.monotonic() < cancelled + 60:
        pause.wait(0.02)
    return times, time.monotonic() - cancelled


def main() -> int:
    """Prints the figures; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=34)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument(
        "--max-s", type=float, default=MAX_S, help="of a read, and of work that outlives its callers"
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as state:
        rig = Rig(Path(state))
        try:
            times, after_s = measure(rig, asked.streams, asked.seconds)
        finally:
            rig.process.terminate()
            rig.process.wait(60)
    print(
        f"{len(times)} reads beside {asked.streams} hostile streams: median {sorted(times)[len(times) // 2]:.3f} s, "
        f"slowest {max(times):.3f} s; judging ended {after_s:.2f} s after the streams were cancelled"
    )
    return 0 if max(max(times), after_s) <= asked.max_s else 1


if __name__ == "__main__":
    raise SystemExit(main())
