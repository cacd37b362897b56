"""How far a sealing is, and when it will be done."""

from __future__ import annotations

import time
from collections.abc import Callable

from datanet.seal_operation import Position

STAGE_COSTS = {"copy": 0.15, "sketch": 0.4, "cluster": 0.25, "write": 0.2}
"""In order, the part of the whole time that a stage takes (`python bench/seal_bench.py`). For the stages that are not reached
yet; within a stage its own speed counts."""

_ENOUGH = 0.02
"""Part of a stage that must be done before its speed says something."""


class SealProgress:
    """Follows one attempt. One thread calls `at`; any thread reads `position`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._first = ""
        self._stage = ""
        self._stage_began = self._began
        self._stage_from = 0.0
        self.position = Position()

    def at(self, stage: str, done: int, total: int) -> None:
        """Records that `done` of `total` (0: unknown) are done of a stage."""
        now = self._clock()
        share = done / total if total else 0.0
        if stage != self._stage:
            self._first = self._first or stage
            self._stage, self._stage_began, self._stage_from = stage, now, share
        self.position = Position(stage=stage, done=done, total=total, eta_s=self._left_s(now, share))

    def _left_s(self, now: float, share: float) -> float:
        """Returns the rest of this stage at its own speed, and later stages at the speed of all so far; 0 if unknown."""
        stages = list(STAGE_COSTS)
        at = stages.index(self._stage)
        here = share - self._stage_from
        cost_done = sum(STAGE_COSTS[each] for each in stages[stages.index(self._first) : at])
        cost_done += STAGE_COSTS[self._stage] * here
        later = sum(STAGE_COSTS[each] for each in stages[at + 1 :])
        if cost_done <= 0 or (here < _ENOUGH and not cost_done > STAGE_COSTS[self._stage] * here):
            return 0.0
        s_per_cost = (now - self._began) / cost_done
        if here < _ENOUGH:
            return s_per_cost * (later + STAGE_COSTS[self._stage] * (1 - share))
        return (now - self._stage_began) / here * (1 - share) + s_per_cost * later
