"""A suite asked in growing parts, both models in turn, until its verdict stands or its items are used up.

What a report rests on does not depend on the parts: it is cut where the sequential test was decided. Nor does a score:
rounding differs with the company in a batch, so items are scored in blocks that the suite's order fixes, whole ones always.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from evalstats.outcomes import ItemOutcome, Outcomes
from evalstats.paired import pair
from evalstats.policy import GatePolicy
from evalstats.rules import value
from evalstats.sequential import verdict_so_far
from finetune.evaluation.item import Item
from finetune.evaluation.known import KnownOutcomes, OutcomesKey
from finetune.evaluation.models import Models
from finetune.evaluation.scoring import score_items
from finetune.evaluation.suites import Suite
from trainer.contract.progress import ProgressWriter

LEAST_ITEMS = 32
"""Items that a report holds at least, of a suite that has as many: so an early verdict has an estimate beside it."""

BLOCK_ITEMS = 16
"""Items that are scored together, counted from the first of the suite. A block is the only company that an item ever has."""

_SCORE_DIGITS = 6
"""Log-likelihoods are recorded to 10^-6 nats, far below what fp32 sums carry."""


def growing(done: int) -> int:
    """Returns how many items to have scored after the next part, so that at most a quarter are scored for nothing."""
    return done + max(LEAST_ITEMS, done // 4)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A suite, cut to the items that count, and both models' outcomes on them."""

    suite: Suite
    base: Outcomes
    tuned: Outcomes


class Measuring:
    """Measures suites, one after another, with the same two models."""

    def __init__(
        self,
        *,
        base: OutcomesKey,
        tuned: OutcomesKey,
        models: Models,
        known: KnownOutcomes,
        policy: GatePolicy,
        progress: ProgressWriter,
        parts: Callable[[int], int] = growing,
    ) -> None:
        """`base` and `tuned` name the models; their family is each suite's.

        `parts`: from how many items are scored to how many to have scored next.
        """
        self._keys = {False: base, True: tuned}
        self._models, self._known, self._policy, self._progress = models, known, policy, progress
        self._parts = parts
        self.measurements: dict[str, float] = {}
        """Seconds and items a second, by model and suite; a suite whose outcomes were known is not in it."""

    def measure(self, suite: Suite, most: int) -> Measured:
        """Asks the whole suite's first items: `most` of them where the policy does not name the suite, or no verdict comes.

        Raises UnscorableItem, InvalidAdapter, NotFound.
        """
        sides = {
            tuned: _Side(
                replace(key, family=suite.family), self._known.get(replace(key, family=suite.family))
            )
            for tuned, key in self._keys.items()
        }
        most = min(most, len(suite.items))
        scoring = _Scoring(
            suite, most, sides, models=self._models, known=self._known, progress=self._progress
        )
        reached = min(most, *(len(side.outcomes) for side in sides.values()))
        while (counted := self._counted(suite, most, sides, reached)) is None:
            reached = min(most, self._parts(reached))
            scoring.extend(reached)
        scoring.end(counted)
        self.measurements |= scoring.measurements()
        cut = suite.first(counted)
        base, tuned = (sides[side].first(counted, cut.digest) for side in (False, True))
        return Measured(suite=cut, base=base, tuned=tuned)

    def _counted(self, suite: Suite, most: int, sides: dict[bool, _Side], reached: int) -> int | None:
        """Returns how many items the report holds; None while more are needed."""
        if reached and self._policy.suite(suite.name) is not None:
            base, tuned = (sides[side].first(reached, suite.family) for side in (False, True))
            so_far = verdict_so_far(
                self._policy, suite.name, pair(suite.rule.metric, base, tuned), available=suite.available
            )
            if so_far.decided_after is not None:
                counted = min(most, max(LEAST_ITEMS, so_far.decided_after))
                return counted if counted <= reached else None
        return most if reached == most else None


@dataclass
class _Side:
    """One model's outcomes on the first items of a suite."""

    key: OutcomesKey
    outcomes: tuple[ItemOutcome, ...]
    scored: int = 0
    seconds: float = 0.0

    def first(self, count: int, suite_digest: str) -> Outcomes:
        return Outcomes(
            suite_digest=suite_digest,
            base_digest=self.key.base,
            adapter_digest=self.key.adapter,
            compute=self.key.compute,
            items=self.outcomes[:count],
        )


class _Scoring:
    """Scores what is not known of one suite, and says how far it is."""

    def __init__(
        self,
        suite: Suite,
        most: int,
        sides: dict[bool, _Side],
        *,
        models: Models,
        known: KnownOutcomes,
        progress: ProgressWriter,
    ) -> None:
        self._suite, self._sides, self._models, self._known = suite, sides, models, known
        self._progress, self._most = progress, most
        self._stage = f"scoring {suite.name}, at most {most} items: stops at the verdict"

    def extend(self, end: int) -> None:
        """Scores both models' blocks up to item `end`, and first the model that is ready. What is scored is kept at once."""
        whole = min(len(self._suite.items), -(-end // BLOCK_ITEMS) * BLOCK_ITEMS)
        for tuned in sorted(self._sides, reverse=self._models.tuned_is_ready):
            side = self._sides[tuned]
            if len(side.outcomes) >= whole:
                continue
            model, tokenizer = self._models.get(tuned=tuned)
            self._report(side, 0, 0.0)
            while len(side.outcomes) < whole:
                begun, start = len(side.outcomes), time.monotonic()
                block = self._suite.items[begun : begun + BLOCK_ITEMS]

                def on_progress(done: int, side: _Side = side, start: float = start) -> None:
                    self._report(side, done, time.monotonic() - start)

                scores = score_items(model, tokenizer, block, on_progress)
                side.seconds += time.monotonic() - start
                side.scored += len(block)
                side.outcomes += tuple(map(self._outcome, block, scores))
            self._known.put(side.key, side.outcomes)

    def _outcome(self, item: Item, scores: Sequence[float]) -> ItemOutcome:
        # Rounded first: the value must follow from what is recorded.
        rounded = tuple(round(score, _SCORE_DIGITS) for score in scores)
        result = value(self._suite.rule, rounded, item.options, item.gold)
        return ItemOutcome(item.id, item.cluster, result, rounded)

    def end(self, counted: int) -> None:
        """Reports that the suite needs no more items."""
        if self._seconds:
            self._progress.report(self._stage, counted, counted, "item", self._rate(0, 0.0))

    def measurements(self) -> dict[str, float]:
        found = {}
        for tuned, side in self._sides.items():
            if side.scored:
                name = f"{'tuned' if tuned else 'base'}.{self._suite.name}"
                found[f"{name}.seconds"] = round(side.seconds, 3)
                found[f"{name}.items_per_s"] = round(side.scored / side.seconds, 3)
        return found

    def _report(self, scored: _Side, done: int, seconds: float) -> None:
        """An item that one model has answered counts half."""
        answered = sum(
            min(self._most, len(side.outcomes) + (done if side is scored else 0))
            for side in self._sides.values()
        )
        self._progress.report(self._stage, answered // 2, self._most, "item", self._rate(done, seconds))

    def _rate(self, done: int, seconds: float) -> dict[str, float]:
        """Answers of one model a second."""
        scored = sum(side.scored for side in self._sides.values()) + done
        elapsed = self._seconds + seconds
        return {"items_per_s": round(scored / elapsed, 3)} if elapsed else {}

    @property
    def _seconds(self) -> float:
        return sum(side.seconds for side in self._sides.values())
