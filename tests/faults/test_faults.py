"""A platform on Apache Kafka and PostgreSQL under load, struck by one of each kind of fault: nothing is lost or doubled.

A short, seeded selection of what `make faults` does for ten minutes. Here the faults come faster than the platform can
recover, several at once; the longest begins first.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from openledger_testing.faults.kinds import Fault, possible
from openledger_testing.faults.rig import Rig, wrong
from openledger_testing.kafka_broker import fetch_jars

pytestmark = [pytest.mark.server, pytest.mark.slow]
SEED = int(os.environ.get("OPENLEDGER_FAULT_SEED", "20261126"))


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """The platform, once it works from end to end."""
    fetch_jars()
    with Rig(tmp_path_factory.mktemp("faults"), SEED, servers=True) as running:
        running.recovered()
        yield running


def chosen(rig: Rig) -> list[Fault]:
    """One fault of each kind; every process is killed."""
    rng = random.Random(SEED)
    by_name: dict[str, list[Fault]] = {}
    for fault in possible(rig):
        by_name.setdefault(fault.name, []).append(fault)
    stopped = rng.choice(by_name.pop("SIGSTOP 20 s"))
    killed = by_name.pop("kill -9")
    others = [rng.choice(faults) for faults in by_name.values()]
    rest = [fault for fault in [*killed, *others] if fault.part != stopped.part]
    rng.shuffle(rest)
    return [stopped, *rest]


def test_faults_lose_and_double_nothing(rig: Rig) -> None:
    stopped, *others = chosen(rig)
    lasting = threading.Thread(target=stopped.strike, args=(rig, stopped.part))
    lasting.start()
    for fault in others:
        cut_before = len(rig.load.promises.cut)
        fault.strike(rig, fault.part)
        if fault.polite:
            assert rig.load.promises.cut[cut_before:] == [], f"{fault} cut calls that had begun"
        assert wrong(rig.reconcile()) == [], f"after {fault}"
    lasting.join()
    rig.recovered()
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
