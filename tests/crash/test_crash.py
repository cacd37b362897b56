"""Services die at their crash points and come back: nothing is lost, nothing is doubled. `make crash` kills at all of them."""

from __future__ import annotations

from pathlib import Path

import ground
import harness
import pytest

pytestmark = [pytest.mark.server, pytest.mark.slow]

KILLS = {
    "delivery": 6,
    "datanet": 6,
    "trainer": 4,
    "relay": 4,
    "inference": 2,
    "attribution": 2,
    "training_job": 2,
}
"""A sample. Those of models that are loaded in each life are fewer."""
SEED = "openledger"


@pytest.mark.parametrize("name", sorted(KILLS))
def test_killed_between_two_steps_it_goes_on_as_if_nothing_had_been(name: str, tmp_path: Path) -> None:
    with harness.Scenario(name, tmp_path) as scenario:
        places = scenario.places()
        assert not (missing := ground.missed(name, [place.point for place in places])), (
            f"no life comes by the points of {missing}"
        )
        outcomes = [scenario.kill_at(place) for place in harness.sample(places, KILLS[name], SEED)]
    assert [outcome.fault for outcome in outcomes if outcome.fault] == []
    assert any(outcome.died for outcome in outcomes)


def test_a_planted_fault_is_found_exactly_where_it_is(tmp_path: Path) -> None:
    """Between telling and remembering: a program killed there tells twice."""
    with harness.Scenario("_planted", tmp_path) as scenario:
        places = scenario.places(also_of_scenarios=True)
        faulty = {str(place) for place in places if scenario.kill_at(place).fault}
    assert faulty == {
        "scenarios._planted:live after log commit#2",  # the first made the topic
        "scenarios._planted:live before rename#1",
    }
