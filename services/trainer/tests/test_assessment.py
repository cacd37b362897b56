"""What is said before a run, and where values come from."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from identity.digest import digest_json
from identity.snapshot import SnapshotLine, write_lines
from servicekit.objects import ObjectStore
from trainer.assessment import Assessment, Finding, Intent, Severity, assess
from trainer.contract.files import SnapshotInput
from trainer.contract.spec import (
    NO_REHEARSAL,
    EffectiveSpec,
    Origin,
    RehearsalSpec,
    SpecError,
    TrainingSpec,
    resolve,
)
from trainer.estimate import START_S, expected
from trainer.facts import DataFacts, FactsReader
from trainer.suggestion import REHEARSAL, suggest

FACTS = DataFacts(
    train_records=2000,
    train_clusters=1900,
    held_out_records=400,
    mean_characters=140.0,
    long_characters=300.0,
    largest_share=0.2,
)


def spec(**values: Any) -> TrainingSpec:
    return dataclasses.replace(suggest(FACTS, {"steps": 40}), **values)


def findings(
    tried: TrainingSpec, facts: DataFacts = FACTS, intent: Intent | None = None
) -> dict[str, Finding]:
    return {finding.parameter: finding for finding in reversed(assess(tried, facts, intent or Intent()))}


def test_what_the_platform_suggests_has_no_warning() -> None:
    assert all(f.severity is Severity.INFO for f in assess(suggest(FACTS, {}), FACTS, Intent()))
    assert all(f.severity is Severity.INFO for f in assess(suggest(FACTS, {"steps": 40}), FACTS, Intent()))


def test_a_careless_rate_without_rehearsal_is_a_danger_and_comes_first() -> None:
    found = assess(spec(learning_rate=2e-3, rehearsal=NO_REHEARSAL), FACTS, Intent())
    assert (found[0].severity, found[0].parameter) == (Severity.DANGER, "learning_rate")
    assert [f.severity for f in found] == sorted((f.severity for f in found), reverse=True)


def test_with_rehearsal_the_same_rate_is_a_warning() -> None:
    assert findings(spec(learning_rate=2e-3))["learning_rate"].severity is Severity.WARNING


def test_no_rehearsal_names_what_the_intent_wants_kept() -> None:
    found = findings(spec(rehearsal=NO_REHEARSAL), intent=Intent("", (("arc_easy", 0.02),)))
    assert "arc_easy" in found["rehearsal.kind"].consequence


@pytest.mark.parametrize(
    ("values", "parameter"),
    [
        ({"learning_rate": 1e-4}, "learning_rate"),
        ({"rehearsal": dataclasses.replace(REHEARSAL, kl_weight=20.0)}, "rehearsal.kl_weight"),
        ({"rehearsal": dataclasses.replace(REHEARSAL, kl_weight=0.1)}, "rehearsal.kl_weight"),
        ({"rehearsal": dataclasses.replace(REHEARSAL, sequences=16)}, "rehearsal.sequences"),
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
    effective = resolve({"learning_rate": 2e-3, "rehearsal.kind": "none"}, suggest(FACTS, {}))
    assert effective.spec.rehearsal == NO_REHEARSAL
    origins = effective.origins
    assert (origins["learning_rate"], origins["steps"], origins["lora_rank"]) == (
        "user",
        "suggested",
        "default",
    )
    assert origins["rehearsal.kl_weight"] == "user"  # follows from the kind
    assert set(origins) == set(effective.spec.values())


@pytest.mark.parametrize(
    ("user", "parameter"),
    [
        ({"rehearsal.kind": "none", "rehearsal.sequences": 8}, "rehearsal.sequences"),
        ({"rehearsal.sequences": 4, "rehearsal.sequences_per_step": 6}, "rehearsal.sequences_per_step"),
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
    original = spec(
        rehearsal=RehearsalSpec(
            kind="self_generated", sequences=8, tokens_each=16, sequences_per_step=2, kl_weight=1.5
        )
    )
    assert TrainingSpec.from_json(original.to_json()) == original


def test_a_record_that_any_snapshot_withholds_is_not_counted_as_trained_on(tmp_path: Path) -> None:
    def line(number: int, split: str, contributor: str) -> SnapshotLine:
        record = {"text": "x" * number}
        digest = digest_json(record)
        return SnapshotLine(
            record_digest=digest, cluster=digest, split=split, contributor=contributor, record=record
        )

    objects = ObjectStore(tmp_path)

    def snapshot(name: str, lines: list[SnapshotLine]) -> SnapshotInput:
        stored = objects.put_bytes(write_lines(sorted(lines, key=lambda line: line.record_digest)))
        return SnapshotInput(
            name=name,
            root="",
            records_digest=stored,
            manifest_digest="",
            weight=1.0,
            prompt="{text}",
            completion="!",
        )

    one = snapshot(
        "one", [line(1, "train", "a"), line(2, "train", "a"), line(3, "train", "a"), line(4, "held_out", "a")]
    )
    # Asks what the first trains on, and keeps a record of its own from both.
    two = snapshot(
        "two",
        [line(2, "held_out", "b"), line(3, "control", "b"), line(4, "held_out", "b"), line(9, "train", "b")],
    )
    alone, both = FactsReader(objects).read([one]), FactsReader(objects).read([one, two])
    assert (alone.train_records, alone.held_out_records, alone.largest_share) == (3, 1, 1.0)
    assert (both.train_records, both.train_clusters, both.held_out_records) == (2, 2, 2)
    assert (both.mean_characters, both.largest_share) == (6.0, 0.5)


def test_the_expected_time_grows_with_rehearsal() -> None:
    without = expected(spec(rehearsal=NO_REHEARSAL), FACTS, 400.0, 1)
    assert START_S < without.seconds < expected(spec(), FACTS, 400.0, 1).seconds
    assert without.basis == "the newest run of this base model here"


def test_the_expected_time_of_a_first_run_follows_from_the_models_size() -> None:
    small, large = (expected(spec(), FACTS, 0.0, parameters) for parameters in (135_000_000, 1_350_000_000))
    assert small.seconds == pytest.approx(expected(spec(), FACTS, 370.4, 1).seconds, rel=0.01)
    assert large.seconds > 9 * (small.seconds - START_S)
    assert "no run of it has succeeded" in small.basis


def test_an_assessment_survives_json() -> None:
    findings = tuple(assess(spec(learning_rate=2e-3), FACTS, Intent()))
    origins: dict[str, Origin] = dict.fromkeys(spec().values(), "user")
    made = Assessment(
        findings=findings,
        suggested=spec(),
        effective=EffectiveSpec(spec(), origins),
        expected_s=12.5,
        expected_basis="basis",
    )
    assert Assessment.from_json(json.loads(json.dumps(made.to_json()))) == made
