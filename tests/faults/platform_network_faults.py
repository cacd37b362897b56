"""A running platform under load, and a network that fails between its services and each process that they call.

    python tests/faults/platform_network_faults.py [--seconds S] [--peers Kafka,S3] [--faults hole,replaced]

PostgreSQL, Kafka, S3, Ray, the chain's node, the trace collector, the issuer of signing keys: each is behind a proxy of its own.
A fault strikes one of them, lasts S seconds and ends. Then the table says how long it took until the platform was whole again:
a record acknowledged, an answer given, attributed and committed on the chain (for Ray, also a training run started), no
loop or dependency named any more. It also says what /readyz and the doctor named meanwhile. `make faults` runs it.

Exit code 1 when the platform was not whole 30 s after a fault, or something was lost or doubled.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from openledger.trainer.v1 import trainer_pb2 as trainer
from rich.console import Console
from rich.table import Table

from openledger_client.addresses import Addresses
from openledger_client.services import ALL
from openledger_ops.doctor.examination import Examination
from openledger_ops.doctor.observation import observe
from openledger_ops.doctor.parallel import in_parallel
from openledger_ops.reconcile.book import Fault as Kind
from openledger_testing.faults.peers import Peers
from openledger_testing.faults.rig import Rig, tried, wrong
from openledger_testing.network_faults import Mode

WHOLE_S = 30.0
_ANSWER_S = 20.0
REPLACED = "replaced"
FAULTS = ("delay", "reset", "hole", "half-open", "drip", REPLACED)
PEERS = ("PostgreSQL", "Kafka", "S3", "Ray", "chain", "trace collector", "signing keys")
_BUILDER = ("brigitte", ("builder", "admin"))
console = Console(highlight=False, width=160)


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one fault of one peer did."""

    peer: str
    fault: str
    whole_s: float
    ready: Sequence[str]
    """What /readyz of any service named."""
    doctor: Sequence[str]
    """What the doctor reported and does not report of a platform at rest."""


def main() -> int:
    """Strikes each peer with each fault and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="how long each fault lasts")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--faults", default=",".join(FAULTS))
    arguments = parser.parse_args()
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory(prefix="openledger-network-") as folder,
        Rig(folder=Path(folder), seed=1, servers=True, proxied=True) as rig,
    ):
        console.print(f"undisturbed, end to end in {rig.recovered():.1f} s")
        storm = Storm(rig, arguments.seconds)
        for peer in arguments.peers.split(","):
            for fault in arguments.faults.split(","):
                rows.append(storm.strike(peer, fault))
                console.print(f"  {rows[-1]}")
        book = rig.come_to_rest()
        lost = [*wrong(book), *rig.load.promises.broken(rig.sources), *rig.load.problems]
        counts = ", ".join(f"{book.count(kind)} {kind.value}" for kind in Kind)
        promises = rig.load.promises
    console.print(_table(rows))
    console.print(
        f"at rest: {counts}; of {len(promises.records):,} records acknowledged, {len(promises.answers):,} answers finished"
        f" and {len(promises.snapshots)} snapshots sealed"
    )
    for line in lost:
        console.print(f"  {line}")
    return 1 if lost or any(row.whole_s > WHOLE_S for row in rows) else 0


class Storm:
    """Faults of one platform, one after the other."""

    def __init__(self, rig: Rig, seconds: float) -> None:
        assert rig.peers is not None
        self._rig = rig
        self._peers: Peers = rig.peers
        self._seconds = seconds
        self._runs = 0
        self._builder = rig.connect(*_BUILDER)
        self._usual = set(self._doctor())

    def strike(self, peer: str, fault: str) -> Row:
        """Lets a fault strike, last and end, and waits until the platform is whole."""
        proxy = self._peers.proxies[peer]
        if fault == REPLACED:
            self._peers.replace_by_a_stranger(peer)
        else:
            proxy.strike(Mode(fault))
        run = self._ask_for_training() if peer == "Ray" else ""
        ready: dict[str, None] = {}
        doctor: dict[str, None] = {}
        examining = threading.Timer(self._seconds / 2, self._examine, (doctor,))
        examining.start()
        begun = time.monotonic()
        while time.monotonic() - begun < self._seconds:
            ready |= dict.fromkeys(self._ready())
            time.sleep(0.2)  # the fault itself: it lasts
        self._peers.heal(peer)
        healed = time.monotonic()
        examining.join()
        self._become_whole(run)
        whole_s = time.monotonic() - healed
        if run:
            self._builder.trainer.CancelTrainingRun(trainer.CancelTrainingRunRequest(name=run), timeout=60)
        return Row(peer=peer, fault=fault, whole_s=whole_s, ready=list(ready), doctor=list(doctor))

    def _become_whole(self, run: str) -> None:
        """Returns when all works from end to end, and nothing is named any more."""
        self._rig.recovered()
        if run:
            self._rig.wait(lambda: tried(lambda: self._has_started(run)), f"{run} has started")
        self._rig.wait(lambda: not self._ready(), "nothing is named")

    def _ready(self) -> list[str]:
        """Returns what services name now: loops, and what keeps them from being ready."""
        found: list[str] = []
        addresses = Addresses(state_dir=self._rig.platform.state_dir)
        known = [(service.name, addresses.of(service)) for service in ALL]
        asking = [partial(observe, name, address.grpc, address.metrics) for name, address in known]
        for (name, _), seen in zip(known, in_parallel(asking, _ANSWER_S), strict=True):
            ready = None if seen is None else seen.ready
            if ready is None:
                found.append(f"{name}: silent")
                continue
            found += [str(each["loop"]) for each in ready.get("loops", [])]
            if ready.get("status") != "ok":
                found.append(str(ready.get("reason")).split(" has not answered")[0])
        return found

    def _examine(self, found: dict[str, None]) -> None:
        found |= dict.fromkeys(each for each in self._doctor() if each not in self._usual)

    def _doctor(self) -> list[str]:
        """Returns the checks that `openledger doctor` does not pass, by what they are about."""
        settings = self._peers.settings
        ray = next(value for name, value in settings.items() if name.endswith("RAY_ADDRESS"))
        rpc = next(value for name, value in settings.items() if name.endswith("RPC_URL"))
        findings = Examination(client=self._rig.sources.client, rpc=rpc, ray_address=ray).findings()
        return [f"{each.about} {each.check}" for each in findings if each.level != "ok"]

    def _ask_for_training(self) -> str:
        self._runs += 1
        request = trainer.CreateTrainingRunRequest(
            model="models/faults",
            base_model="baseModels/tiny",
            snapshots=[trainer.WeightedSnapshot(snapshot=min(self._rig.load.promises.snapshots))],
            spec=trainer.TrainingSpec(steps=40),
            request_id=f"run-{self._runs}",
        )
        names: list[str] = []

        def created() -> bool:
            names[:] = [self._builder.trainer.CreateTrainingRun(request, timeout=60).name]
            return True

        self._rig.wait(lambda: tried(created), "a training run is taken")
        return names[0]

    def _has_started(self, run: str) -> bool:
        found = self._builder.trainer.GetTrainingRun(trainer.GetTrainingRunRequest(name=run), timeout=10)
        return found.state in (trainer.RUN_STATE_RUNNING, trainer.RUN_STATE_SUCCEEDED)


def _table(rows: Sequence[Row]) -> Table:
    table = Table(title="network faults of a running platform", title_justify="left", header_style="bold")
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("peer", lambda row: row.peer),
        ("fault", lambda row: row.fault),
        ("whole after, s", lambda row: f"{row.whole_s:.1f}"),
        ("readiness named", lambda row: ", ".join(row.ready) or "nothing"),
        ("the doctor reported", lambda row: ", ".join(row.doctor) or "nothing"),
    ]
    for label, _ in columns:
        table.add_column(label, justify="right" if label.endswith("s") and "," in label else "left")
    for row in rows:
        table.add_row(*(value(row) for _, value in columns))
    return table


if __name__ == "__main__":
    sys.exit(main())
