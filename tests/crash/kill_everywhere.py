"""Kills every service at every crash point, and prints a table. `make crash`.

    python tests/crash/kill_everywhere.py [SCENARIO ...] [--seed TEXT]

A run is killed once at each hit of a crash point. Then, for each point, a run that dies there is followed by one that dies
at a hit drawn by the seed. Ends with 1 when something was lost or doubled, when a service did not start again, or when the
source has a crash point that no run hits.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from openledger_testing.crash import coverage, harness


@dataclass
class Row:
    """What was found of one scenario."""

    scenario: str
    points: set[str] = field(default_factory=set)
    hits: int = 0
    kills: int = 0
    died_at: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def cells(self) -> list[int]:
        """As the table shows it, after the name."""
        passed, faults = self.kills - len(self.faults), len(self.faults)
        return [
            len(self.points),
            len(self.died_at),
            self.hits,
            self.kills,
            passed,
            faults,
            round(self.seconds),
        ]


def kill_everywhere(name: str, seed: str, folder: Path) -> Row:
    """All kills of one scenario."""
    row, began = Row(name), time.monotonic()
    with harness.Scenario(name, folder / name) as scenario:
        hits = scenario.hits()
        row.hits, row.points = len(hits), {hit.point for hit in hits}
        row.faults += [f"no run hits {function}" for function in sorted(coverage.missed(name, row.points))]
        for chosen in [*((hit,) for hit in hits), *harness.twice(hits, seed)]:
            outcome = scenario.kill_at(*chosen)
            row.kills += 1
            if outcome.died and len(chosen) == 1:
                row.died_at.add(chosen[0].point)
            if outcome.fault:
                row.faults.append(outcome.fault)
                print(f"{name}: {outcome.fault}", file=sys.stderr, flush=True)
    row.seconds = time.monotonic() - began
    print(_line(name, row.cells()), file=sys.stderr, flush=True)  # now: the others may take long
    return row


def _line(first: str, cells: Sequence[object]) -> str:
    return f"{first:<14}" + "".join(f"{cell!s:>9}" for cell in cells)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenarios", nargs="*", default=list(harness.SCENARIOS), metavar="SCENARIO")
    parser.add_argument("--seed", default="openledger", help="draws where the second of two deaths is")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="openledger-crash-") as folder, ThreadPoolExecutor(2) as pool:
        rows = list(
            pool.map(lambda name: kill_everywhere(name, arguments.seed, Path(folder)), arguments.scenarios)
        )
    print(_line("scenario", ["points", "died at", "hits", "kills", "passed", "faults", "seconds"]))
    for row in rows:
        print(_line(row.scenario, row.cells()))
    print(_line("all", [sum(column) for column in zip(*(row.cells() for row in rows), strict=True)]))
    return 1 if any(row.faults for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
