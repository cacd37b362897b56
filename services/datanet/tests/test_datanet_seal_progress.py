"""The estimate of the time left uses what was measured, and says nothing before."""

from __future__ import annotations

import pytest

from datanet.seal_progress import STAGE_COSTS, SealProgress


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("total_s", [10.0, 1000.0])
def test_the_estimate_is_exact_where_stages_take_their_usual_share(total_s: float) -> None:
    clock = Clock()
    progress = SealProgress(clock)
    begun = 0.0
    for stage, cost in STAGE_COSTS.items():
        for done in range(0, 100, 10):
            clock.now = begun + total_s * cost * done / 100
            progress.at(stage, done, 100)
            if clock.now > 0:
                assert progress.position.eta_s == pytest.approx(total_s - clock.now)
        begun += total_s * cost


def test_a_stage_that_is_slower_than_usual_lengthens_the_estimate_by_itself() -> None:
    clock = Clock()
    progress = SealProgress(clock)
    progress.at("write", 0, 100)
    clock.now = 50.0
    progress.at("write", 25, 100)
    assert progress.position.eta_s == pytest.approx(150.0)


def test_nothing_is_estimated_at_the_beginning_nor_without_a_total() -> None:
    progress = SealProgress(Clock())
    assert progress.position.stage == ""
    progress.at("copy", 0, 100)
    assert progress.position.eta_s == 0
    progress.at("copy", 50, 0)
    assert progress.position.eta_s == 0


def test_stages_that_an_earlier_attempt_completed_do_not_count_as_done_by_this_one() -> None:
    clock = Clock()
    progress = SealProgress(clock)
    progress.at("cluster", 0, 10)
    clock.now = 10.0
    progress.at("cluster", 5, 10)
    left_s = 10 + 20 / STAGE_COSTS["cluster"] * STAGE_COSTS["write"]
    assert progress.position.eta_s == pytest.approx(left_s)
