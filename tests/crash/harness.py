"""Kills a service at each of its crash points and looks at what its next life makes of it.

A scenario (`scenarios/`) says how a service lives: `prepare` makes the folder it finds at first, `live` is one life, from
start to rest, with a client that asks for the same things again whatever became of them before, `check` raises unless the
folder's databases, objects and event log hold each thing once. The first life only records the points it comes by. Then,
for each point and each time it was come by, on a fresh copy of the folder: a life that ends there, a life that does not,
and the check.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from servicekit import crash

HERE = Path(__file__).resolve().parent
SCENARIOS = tuple(sorted(path.stem for path in (HERE / "scenarios").glob("[a-z]*.py")))


@dataclass(frozen=True)
class Place:
    """The `hit`th time that a life comes by a point."""

    point: str
    hit: int

    def __str__(self) -> str:
        return f"{self.point}#{self.hit}"


@dataclass(frozen=True)
class Outcome:
    """What came of a life that was to end at these places, one after the other."""

    places: tuple[Place, ...]
    died: int
    """How many of the lives did end there; one may go another way and not come by."""
    fault: str
    """What is wrong; "" when nothing is."""


class Scenario:
    """One scenario, with the process that brings up its lives."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._folder = folder
        self._template = folder / "template"
        self._copies = 0
        path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "nursery.py"), name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def __enter__(self) -> Self:
        if self._answer() != "ready":
            raise RuntimeError(f"scenario {self.name} did not start")
        self._template.mkdir(parents=True)
        self._must("prepare", self._template)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def places(self, *, also_of_scenarios: bool = False) -> list[Place]:
        """All that a life comes by, in order; a life that nobody kills passes the check.

        Steps that a scenario's own client takes are left out unless they are asked for.
        """
        folder, record = self._fresh(), self._folder / "points"
        self._must("live", folder, record=str(record))
        self._must("check", folder)
        self._must("live", folder)  # a second life over the first one's results changes nothing
        self._must("check", folder)
        hits: Counter[str] = Counter()
        found = []
        for point in record.read_text().splitlines():
            hits[point] += 1
            if also_of_scenarios or not point.startswith("scenarios."):
                found.append(Place(point, hits[point]))
        return found

    def kill_at(self, *places: Place) -> Outcome:
        """One life after the other dies at its place; the last one lives to its end. Then the check."""
        folder, died = self._fresh(), 0
        for place in places:
            code = self._do("live", folder, at=place.point, hit=place.hit)
            if code not in (0, crash.EXIT_CODE):
                return Outcome(
                    places, died, self._story(folder, f"the life to die at {place} ended with {code}")
                )
            died += code != 0
        for verb in ("live", "check"):
            if code := self._do(verb, folder):
                at = " and ".join(map(str, places))
                return Outcome(places, died, self._story(folder, f"{verb} after {at} ended with {code}"))
        shutil.rmtree(folder)
        return Outcome(places, died, "")

    def _fresh(self) -> Path:
        self._copies += 1
        folder = self._folder / f"life-{self._copies}"
        self._do("copy", folder, template=str(self._template))
        return folder

    def _must(self, verb: str, folder: Path, **more: Any) -> None:
        if code := self._do(verb, folder, **more):
            raise AssertionError(self._story(folder, f"{self.name}: {verb} ended with {code}"))

    def _do(self, verb: str, folder: Path, **more: Any) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": verb, "folder": str(folder), **more}) + "\n")
        self._process.stdin.flush()
        code: int = self._answer()
        return code

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline() or '"the nursery is gone"')

    @staticmethod
    def _story(folder: Path, what: str) -> str:
        log = folder / "life.log"
        return f"{what}\n{log.read_text(errors='replace')[-6000:] if log.exists() else ''}(in {folder})"


def sample(places: Sequence[Place], count: int, seed: str) -> list[Place]:
    """So many places, no point twice while there are others, the same ones for the same seed."""
    chosen = random.Random(seed)
    shuffled = chosen.sample(list(places), len(places))
    first = {place.point: place for place in reversed(shuffled)}
    distinct = chosen.sample(sorted(first.values(), key=str), len(first))
    rest = [place for place in shuffled if place not in set(distinct)]
    return [*distinct, *rest][:count]


def twice(places: Sequence[Place], seed: str) -> list[tuple[Place, Place]]:
    """For each point once, a life that dies there and a next one that dies anywhere."""
    chosen = random.Random(seed)
    first = {place.point: place for place in reversed(places)}
    return [(place, chosen.choice(list(places))) for place in first.values()]
