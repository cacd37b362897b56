"""`make faults`: faults drawn at random strike running platforms under load, and a table says what that did.

    python tests/faults/random_faults.py [--seed N] [--minutes M]

Half of the time on the embedded event log and SQLite, half on Apache Kafka and PostgreSQL. Exit code 1 when anything was
lost or doubled, or a request failed that had been accepted.
"""

from __future__ import annotations

import argparse
import itertools
import secrets
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from openledger_ops.reconcile.book import Fault as Kind
from openledger_testing.faults.kinds import Outcome, drawn, strike
from openledger_testing.faults.rig import Rig, wrong

console = Console(highlight=False, width=120)


def main() -> int:
    """Runs the storm and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seed", type=int, default=None, help="which faults, in which order; printed at the start"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long faults are injected, in all")
    arguments = parser.parse_args()
    seed: int = secrets.randbelow(1 << 31) if arguments.seed is None else arguments.seed
    console.print(f"seed {seed}")
    bad = False
    for servers in (False, True):
        title = "Apache Kafka and PostgreSQL" if servers else "embedded event log and SQLite"
        with tempfile.TemporaryDirectory(prefix="openledger-faults-") as folder:
            bad |= _storm(Path(folder), seed, servers, arguments.minutes * 30, title)
    return 1 if bad else 0


def _storm(folder: Path, seed: int, servers: bool, seconds: float, title: str) -> bool:
    """One platform's storm; True when something was wrong."""
    outcomes: list[Outcome] = []
    with Rig(folder=folder, seed=seed, servers=servers) as rig:
        console.print(f"\n{title}: undisturbed, end to end in {rig.recovered():.1f} s")
        begun = time.monotonic()
        for round_ in itertools.count():
            for fault in drawn(rig, seed + round_):
                if time.monotonic() - begun < seconds:
                    outcomes.append(strike(rig, fault, begun))
                    _tell(outcomes[-1])
            if time.monotonic() - begun >= seconds:
                break
        book = rig.come_to_rest()
        broken = rig.load.promises.broken(rig.sources)
        promises = rig.load.promises
    console.print(_table(title, outcomes))
    console.print(
        f"at rest: {book.count(Kind.LOST)} lost, {book.count(Kind.DOUBLED)} doubled, {book.count(Kind.WAITING)} waiting;"
        f" of {len(promises.records):,} records acknowledged, {len(promises.answers):,} answers finished and"
        f" {len(promises.snapshots)} snapshots sealed, {len(broken)} are missing; {len(promises.cut)} calls were cut and"
        f" {len(promises.refused)} refused, and sent again"
    )
    for line in [*wrong(book), *broken, *rig.load.problems]:
        console.print(f"  {line}")
    unrest = book.count(Kind.WAITING) or rig.load.problems
    return bool(unrest or wrong(book) or broken or any(each.details for each in outcomes))


def _tell(outcome: Outcome) -> None:
    console.print(f"  {outcome.at_s:5.0f} s {outcome.fault}: recovered in {outcome.recovered_s:.1f} s")
    for line in outcome.details:
        console.print(f"    {line}")


def _table(title: str, outcomes: list[Outcome]) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    for label in (
        "fault",
        "at, s",
        "part",
        "recovered in, s",
        "lost",
        "doubled",
        "accepted, then failed",
        "cut, sent again",
    ):
        table.add_column(label, justify="left" if label in ("fault", "part") else "right")
    for each in outcomes:
        numbers = (each.lost, each.doubled, each.failed, each.cut)
        table.add_row(
            each.fault.name,
            f"{each.at_s:.0f}",
            each.fault.part,
            f"{each.recovered_s:.1f}",
            *(str(number) for number in numbers),
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
