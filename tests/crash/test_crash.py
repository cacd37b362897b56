"""Services die at their crash points and come back: nothing is lost, nothing is doubled. `make crash` kills at all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from openledger_testing.crash import coverage, harness

pytestmark = [pytest.mark.server, pytest.mark.slow]

KILLS = {
    "delivery": 4,
    "datanet": 4,
    "trainer": 3,
    "relay": 3,
    "inference": 2,
    "attribution": 2,
    "training_job": 2,
}
"""A sample: fewer where each run loads a model."""
SEED = "openledger"


@pytest.mark.parametrize("name", sorted(KILLS))
def test_a_service_killed_between_two_steps_recovers_completely(name: str, tmp_path: Path) -> None:
    with harness.Scenario(name, tmp_path) as scenario:
        hits = scenario.hits()
        assert not (missing := coverage.missed(name, [hit.point for hit in hits])), (
            f"no run hits the points of {missing}"
        )
        outcomes = [scenario.kill_at(hit) for hit in harness.sample(hits, KILLS[name], SEED)]
    assert [outcome.fault for outcome in outcomes if outcome.fault] == []
    assert any(outcome.died for outcome in outcomes)


def test_a_planted_fault_is_found_exactly_where_it_is(tmp_path: Path) -> None:
    """Between publishing and remembering: a program killed there publishes twice."""
    with harness.Scenario("_faulty", tmp_path) as scenario:
        hits = scenario.hits(also_of_scenarios=True)
        faulty = {str(hit) for hit in hits if scenario.kill_at(hit).fault}
    assert faulty == {
        "openledger_testing.crash.scenarios._faulty:live after log commit#2",  # the first made the topic
        "openledger_testing.crash.scenarios._faulty:live before rename#1",
    }
