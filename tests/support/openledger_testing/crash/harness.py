"""Kills a service at each of its crash points, restarts it, and checks what it recovered.

A scenario (`scenarios/`) has three functions. `prepare` makes the folder that the service finds at first. `live` runs the
service once, from start to rest, with a client that repeats its requests whatever became of them before. `check` raises
unless the folder's databases, objects and event log hold each thing once. The first run only records the crash points that
it hits. Then follow, for each hit of each point, on a fresh copy of the folder: a run that dies there, a run that does not,
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

from openledger_testing.crash import scenarios
from servicekit import crash

SCENARIOS = tuple(sorted(path.stem for path in Path(scenarios.__path__[0]).glob("[a-z]*.py")))


@dataclass(frozen=True)
class Hit:
    """The `number`th time that a run hits a crash point."""

    point: str
    number: int

    def __str__(self) -> str:
        return f"{self.point}#{self.number}"


@dataclass(frozen=True)
class Outcome:
    """The outcome of runs that were to die at these hits, one after the other."""

    hits: tuple[Hit, ...]
    died: int
    """How many of the runs did die there; a run may take another path and not reach its hit."""
    fault: str
    """What is wrong; "" when nothing is."""


class Scenario:
    """One scenario, with the process that starts its runs."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._folder = folder
        self._template = folder / "template"
        self._copies = 0
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "openledger_testing.crash.fork_server", name],
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

    def hits(self, *, also_of_scenarios: bool = False) -> list[Hit]:
        """Returns all hits of a run, in order. A run that is not killed passes the check.

        Steps that a scenario's own client takes are left out unless they are asked for.
        """
        folder, record = self._fresh(), self._folder / "points"
        self._must("live", folder, record=str(record))
        self._must("check", folder)
        self._must("live", folder)  # a second run over the results of the first changes nothing
        self._must("check", folder)
        counts: Counter[str] = Counter()
        found = []
        for point in record.read_text().splitlines():
            counts[point] += 1
            if also_of_scenarios or not point.startswith(scenarios.__name__):
                found.append(Hit(point, counts[point]))
        return found

    def kill_at(self, *hits: Hit) -> Outcome:
        """Kills one run after the other at its hit; the last run ends by itself. Then the check."""
        folder, died = self._fresh(), 0
        for hit in hits:
            code = self._do("live", folder, at=hit.point, hit=hit.number)
            if code not in (0, crash.EXIT_CODE):
                return Outcome(hits, died, self._story(folder, f"the run to die at {hit} ended with {code}"))
            died += code != 0
        for verb in ("live", "check"):
            if code := self._do(verb, folder):
                at = " and ".join(map(str, hits))
                return Outcome(hits, died, self._story(folder, f"{verb} after {at} ended with {code}"))
        shutil.rmtree(folder)
        return Outcome(hits, died, "")

    def _fresh(self) -> Path:
        self._copies += 1
        folder = self._folder / f"run-{self._copies}"
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
        return json.loads(self._process.stdout.readline() or '"the fork server is gone"')

    @staticmethod
    def _story(folder: Path, what: str) -> str:
        log = folder / "process.log"
        return f"{what}\n{log.read_text(errors='replace')[-6000:] if log.exists() else ''}(in {folder})"


def sample(hits: Sequence[Hit], count: int, seed: str) -> list[Hit]:
    """Returns `count` hits: no point twice while there are others, the same ones for the same seed."""
    chosen = random.Random(seed)
    shuffled = chosen.sample(list(hits), len(hits))
    first = {hit.point: hit for hit in reversed(shuffled)}
    distinct = chosen.sample(sorted(first.values(), key=str), len(first))
    rest = [hit for hit in shuffled if hit not in set(distinct)]
    return [*distinct, *rest][:count]


def twice(hits: Sequence[Hit], seed: str) -> list[tuple[Hit, Hit]]:
    """Returns, for each point once, a run that dies there and a next one that dies anywhere."""
    chosen = random.Random(seed)
    first = {hit.point: hit for hit in reversed(hits)}
    return [(hit, chosen.choice(list(hits))) for hit in first.values()]
