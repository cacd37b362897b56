"""What is said before a run, and where values come from."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from trainer.assessment import Finding, Intent, Severity, assess
from trainer.estimate import START_S, expected_seconds
from trainer.facts import DataFacts, combine
from trainer.spec import NO_REPLAY, ReplaySpec, SpecError, TrainingSpec, resolve
from trainer.suggestion import REPLAY, suggest

FACTS = DataFacts(2000, 1900, 400, 140.0, 300.0, 0.2)


def spec(**values: Any) -> TrainingSpec:
    return dataclasses.replace(suggest(FACTS, {"steps": 40}), **values)


def findings(
    tried: TrainingSpec, facts: DataFacts = FACTS, intent: Intent | None = None
) -> dict[str, Finding]:
    return {finding.parameter: finding for finding in reversed(assess(tried, facts, intent or Intent()))}


def test_what_the_platform_suggests_has_no_warning() -> None:
    assert all(f.severity is Severity.INFO for f in assess(suggest(FACTS, {}), FACTS, Intent()))
    assert all(f.severity is Severity.INFO for f in assess(suggest(FACTS, {"steps": 40}), FACTS, Intent()))


def test_a_careless_rate_without_replay_is_a_danger_and_comes_first() -> None:
    found = assess(spec(learning_rate=2e-3, replay=NO_REPLAY), FACTS, Intent())
    assert (found[0].severity, found[0].parameter) == (Severity.DANGER, "learning_rate")
    assert [f.severity for f in found] == sorted((f.severity for f in found), reverse=True)


def test_with_replay_the_same_rate_is_a_warning() -> None:
    assert findings(spec(learning_rate=2e-3))["learning_rate"].severity is Severity.WARNING


def test_no_replay_names_what_the_intent_wants_kept() -> None:
    found = findings(spec(replay=NO_REPLAY), intent=Intent("", (("arc_easy", 0.02),)))
    assert "arc_easy" in found["replay.kind"].consequence


@pytest.mark.parametrize(
    ("values", "parameter"),
    [
        ({"learning_rate": 1e-4}, "learning_rate"),
        ({"replay": dataclasses.replace(REPLAY, kl_weight=20.0)}, "replay.kl_weight"),
        ({"replay": dataclasses.replace(REPLAY, kl_weight=0.1)}, "replay.kl_weight"),
        ({"replay": dataclasses.replace(REPLAY, sequences=16)}, "replay.sequences"),
        ({"steps": 1000}, "steps"),
        ({"lora_alpha": 256}, "lora_alpha"),
        ({"max_tokens": 32}, "max_tokens"),
    ],
)
def test_values_that_cost_something_are_warned_about(values: dict[str, Any], parameter: str) -> None:
    assert findings(spec(**values))[parameter].severity is Severity.WARNING


def test_little_data_is_warned_about() -> None:
    few = dataclasses.replace(FACTS, train_records=50, held_out_records=10)
    values = [f.value for f in assess(spec(), few, Intent()) if f.parameter == "snapshots"]
    assert values == ["50 records to train on", "10 held out"]


def test_few_steps_get_a_higher_rate() -> None:
    assert suggest(FACTS, {"steps": 40}).learning_rate == 5e-4
    assert suggest(FACTS, {"steps": 400}).learning_rate == 2e-4
    assert suggest(FACTS, {}).steps == 250  # two epochs


def test_every_value_says_who_chose_it() -> None:
    effective = resolve({"learning_rate": 2e-3, "replay.kind": "none"}, suggest(FACTS, {}))
    assert effective.spec.replay == NO_REPLAY
    origins = effective.origins
    assert (origins["learning_rate"], origins["steps"], origins["lora_rank"]) == (
        "user",
        "suggested",
        "default",
    )
    assert origins["replay.kl_weight"] == "user"  # follows from the kind
    assert set(origins) == set(effective.spec.values())


@pytest.mark.parametrize(
    ("user", "parameter"),
    [
        ({"replay.kind": "none", "replay.sequences": 8}, "replay.sequences"),
        ({"replay.sequences": 4, "replay.sequences_per_step": 6}, "replay.sequences_per_step"),
        ({"target_modules": ("lm_head",)}, "target_modules"),
        ({"batch_size": 2, "workers": 4}, "workers"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"momentum": 0.9}, "momentum"),
    ],
)
def test_values_that_cannot_run_are_refused_by_name(user: dict[str, Any], parameter: str) -> None:
    with pytest.raises(SpecError) as caught:
        resolve(user, suggest(FACTS, user))
    assert caught.value.parameter == parameter


def test_a_spec_survives_json() -> None:
    original = spec(replay=ReplaySpec("self_generated", 8, 16, 2, 1.5))
    assert TrainingSpec.from_json(original.to_json()) == original


def test_facts_of_several_snapshots_add_up() -> None:
    other = DataFacts(1000, 900, 100, 80.0, 500.0, 0.9)
    both = combine([FACTS, other])
    assert (both.train_records, both.held_out_records, both.long_characters) == (3000, 500, 500.0)
    assert both.mean_characters == pytest.approx(120.0)
    assert both.largest_share == pytest.approx(0.3)


def test_the_estimate_grows_with_replay_and_is_zero_when_nothing_was_measured() -> None:
    assert expected_seconds(spec(), FACTS, 0.0) == 0.0
    without = expected_seconds(spec(replay=NO_REPLAY), FACTS, 400.0)
    assert START_S < without < expected_seconds(spec(), FACTS, 400.0)
