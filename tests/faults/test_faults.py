"""A platform on Apache Kafka and PostgreSQL under load, struck by each kind of fault: nothing is lost or doubled.

A selection of what `make faults` does for ten minutes, in three blows. A service is asked to end while it answers. A process is
stopped while a disk is full and the network to the database fails. All processes are killed at once. Which part a fault
strikes is drawn by the seed.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from openledger_testing.faults.kinds import Fault, possible
from openledger_testing.faults.rig import Rig, wrong
from openledger_testing.kafka_broker import fetch_jars

pytestmark = [pytest.mark.server, pytest.mark.slow]
SEED = int(os.environ.get("OPENLEDGER_FAULT_SEED", "20261126"))
PACE_S = 1.5
"""Calls are always there; that they come fast is for `make faults`."""
GRACE_S = 30.0
"""More than a busy machine needs, so that a call is cut by a fault and not by the load."""
CALLED = ("datanet", "inference")
"""The services with which the load has calls open at any moment: what SIGTERM must not cut."""


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """The platform, once it works from end to end."""
    fetch_jars()
    with Rig(
        folder=tmp_path_factory.mktemp("faults"), seed=SEED, servers=True, pace_s=PACE_S, grace_s=GRACE_S
    ) as running:
        running.recovered()
        yield running


def drawn(rig: Rig) -> dict[str, list[Fault]]:
    """What can happen to this platform, by kind, each kind in an order that the seed decides."""
    rng = random.Random(SEED)
    kinds: dict[str, list[Fault]] = {}
    for fault in possible(rig):
        kinds.setdefault(fault.name, []).append(fault)
    for faults in kinds.values():
        rng.shuffle(faults)
    return kinds


def strike(rig: Rig, *faults: Fault) -> None:
    """One after the other."""
    for fault in faults:
        fault.strike(rig, fault.part)


def end_politely(rig: Rig, fault: Fault) -> None:
    """On an undisturbed platform: a call that another fault cut would say nothing about SIGTERM."""
    cut_before = len(rig.load.promises.cut)
    strike(rig, fault)
    assert rig.load.promises.cut[cut_before:] == [], f"{fault} cut calls that had begun"
    rig.recovered()


def test_faults_lose_and_double_nothing(rig: Rig) -> None:
    kinds = drawn(rig)
    polite = next(fault for fault in kinds["SIGTERM"] if fault.part in CALLED)
    end_politely(rig, polite)
    assert wrong(rig.reconcile()) == [], f"after {polite}"

    stopped, network = kinds["SIGSTOP 20 s"][0], kinds["network 15 s"][0]
    meanwhile = [*kinds.get("disk full", [])[:1], network]
    with ThreadPoolExecutor(1) as lasting:
        stopping = lasting.submit(strike, rig, stopped)
        strike(rig, *meanwhile)
        stopping.result()

    killed = [*kinds["kill -9"], *kinds["crash and restart"]]
    with ThreadPoolExecutor(len(killed)) as at_once:
        list(at_once.map(partial(strike, rig), killed))
    rig.recovered()
    assert wrong(rig.reconcile()) == [], f"after {[*map(str, [stopped, *meanwhile, *killed])]}"

    book = rig.come_to_rest()
    assert book.findings == []
    promises = rig.load.promises
    assert promises.broken(rig.sources) == []
    assert rig.load.problems == []
    assert min(len(promises.records), len(promises.answers), len(promises.snapshots)) > 0


def test_an_operator_counts_the_same(rig: Rig) -> None:
    """`openledger reconcile` finds databases, log and chain by the settings of `openledger up`."""
    command = [
        sys.executable,
        "-m",
        "openledger_cli",
        "--state-dir",
        str(rig.platform.state_dir),
        "reconcile",
        "--at-rest",
    ]
    outputs: list[str] = []

    def at_rest() -> bool:
        counted = subprocess.run(command, capture_output=True, text=True, check=False)
        outputs.append(counted.stdout + counted.stderr)
        return counted.returncode == 0

    # The relay makes a reward root by itself whenever more was earned: the last may have come after the rig's own look.
    rig.wait(at_rest, "a count at rest")
    assert "0 lost, 0 doubled, 0 waiting" in outputs[-1]
    assert all("0 lost, 0 doubled" in output for output in outputs)
