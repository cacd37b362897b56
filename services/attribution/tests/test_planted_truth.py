"""Where it is known whose records made an answer, attribution says so; copies and controls earn nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attribution import convert
from attribution import index as index_module
from attribution.builder import BuildRequest, Stopped, build
from attribution.gradients import Example
from attribution.index import AttributionIndex, IndexParameters, InvalidIndex
from attribution.models import AdapterModels
from attribution.projection import FloatArray, ProjectionSpec
from attribution.record import Scored, to_bytes
from attribution.scoring import ScoringParameters, score
from attribution.shares import PPM
from attribution.source import InconsistentSource, read_source
from identity.digest import canonical_json, sha256_bytes
from modelkit.training_manifest import TrainingManifest
from servicekit.database import utc_now

World = Any
"""Of conftest.py, which pytest does not let be imported."""

PARAMETERS = IndexParameters(ProjectionSpec(width=8))


def build_index(
    world: World,
    folder: Path,
    gradients: Callable[..., FloatArray] | None = None,
    stop: threading.Event | None = None,
) -> tuple[str, AdapterModels]:
    models = AdapterModels(
        store=world.store,
        cache_dir=folder / "models",
        compute=world.compute,
        projection=PARAMETERS.projection,
    )
    compute = gradients or (
        lambda examples: models.gradients(world.base_digest, world.adapter_digest, examples)
    )
    request = BuildRequest(
        training_manifest_digest=world.manifest_digest,
        source=read_source(world.manifest_digest, world.store),
        parameters=PARAMETERS,
        compute=models.compute,
        work_dir=folder / "work",
        batch_tokens=256,
    )
    digest = build(
        request,
        gradients=compute,
        layout=models.layout(world.base_digest, world.adapter_digest),
        tokenizer=models.tokenizer(world.base_digest),
        store=world.store,
        report=lambda *_: None,
        stop=stop or threading.Event(),
    )
    return digest, models


@pytest.fixture(scope="module")
def built(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, AttributionIndex, AdapterModels]:
    digest, models = build_index(world, tmp_path_factory.mktemp("index"))
    return digest, index_module.load(digest, world.store), models


def scored(
    world: World,
    built: tuple[str, AttributionIndex, AdapterModels],
    text: str,
    colour: str,
    inference: str = "inferences/01KCB3Q6Z4S0V6XG1V2C3D4E5F",
) -> Scored:
    digest, index, models = built
    answer = convert.to_answer(world.answer(text, colour, inference).SerializeToString())
    return score(answer, digest, index, models=models, parameters=ScoringParameters(span_min_words=2))


@pytest.mark.parametrize(("name", "colour"), [("alice", "red"), ("bob", "blue"), ("carol", "green")])
def test_the_contributor_whose_records_made_the_answer_gets_the_largest_share(
    world: World, built: tuple[str, AttributionIndex, AdapterModels], name: str, colour: str
) -> None:
    found = scored(world, built, f"{' '.join(world.words[name][:4])} 77", colour)
    assert found.shares[0].contributor == world.contributor(name)
    assert found.shares[0].ppm > 2 * sum(share.ppm for share in found.shares[1:])
    assert found.shares[0].payout_address == world.address(name)
    assert found.shares[0].top_records
    assert sum(share.ppm for share in found.shares) + found.unattributed_ppm == PPM


def test_the_copier_gets_nothing_where_naive_normalisation_would_have_paid(
    world: World, built: tuple[str, AttributionIndex, AdapterModels]
) -> None:
    found = scored(world, built, "fire ember flame ash 5", "red")
    mallory = next(share for share in found.shares if share.contributor == world.contributor("mallory"))
    assert (mallory.ppm, mallory.cluster_count) == (0, 0)
    assert mallory.record_count == 10
    assert mallory.naive_ppm > 10_000


def test_controls_are_never_paid_where_naive_normalisation_would_have_paid(
    world: World, built: tuple[str, AttributionIndex, AdapterModels]
) -> None:
    found = scored(world, built, "fire ember flame ash 5", "red")
    assert world.contributor("dave") not in [share.contributor for share in found.shares]
    assert found.naive_control_ppm > 0
    assert sum(share.naive_ppm for share in found.shares) + found.naive_control_ppm == PPM


def test_scoring_again_gives_the_same_record(
    world: World, built: tuple[str, AttributionIndex, AdapterModels]
) -> None:
    one, other = (scored(world, built, "fire ember flame ash 5", "red") for _ in range(2))
    answer = convert.to_answer(
        world.answer("x", "red", "inferences/01KCB3Q6Z4S0V6XG1V2C3D4E5F").SerializeToString()
    )
    now = utc_now()
    assert sha256_bytes(to_bytes(answer, one, now)) == sha256_bytes(to_bytes(answer, other, now))


def test_spans_name_the_records_that_contain_them(
    world: World, built: tuple[str, AttributionIndex, AdapterModels]
) -> None:
    line = next(line for line in world.lines if line.contributor == world.contributor("bob"))
    found = scored(world, built, str(line.record["text"]), "blue")
    span = max(found.spans, key=lambda span: span.end - span.start)
    assert span.in_prompt
    assert line.record_digest in span.record_digests
    assert world.contributor("bob") in span.contributors


def test_reliability_is_measured(world: World, built: tuple[str, AttributionIndex, AdapterModels]) -> None:
    found = scored(world, built, "fire ember flame ash 5", "red").reliability
    assert found is not None
    assert found.cluster_agreement > 0.5
    assert found.control_count == 60
    assert 0 <= found.null_exceedance < 0.2


def test_answers_without_tokens_or_with_unknown_ones_are_not_attributable_and_say_why(
    world: World, built: tuple[str, AttributionIndex, AdapterModels]
) -> None:
    digest, index, models = built
    answer = convert.to_answer(world.answer("fire", "red").SerializeToString())
    for odd, reason in (
        (replace(answer, output_ids=()), "no tokens"),
        (replace(answer, prompt_ids=()), "excludes the prompt's tokens"),
        (replace(answer, output_ids=(99_999,)), "not in the base model's vocabulary"),
    ):
        found = score(odd, digest, index, models=models, parameters=ScoringParameters())
        assert found.unattributed_ppm == PPM
        assert reason in found.unattributed_reason


def test_an_interrupted_build_resumes_and_gives_the_same_index(
    world: World, built: tuple[str, AttributionIndex, AdapterModels], tmp_path: Path
) -> None:
    digest, _, models = built
    stop, batches = threading.Event(), []

    def stopping(examples: list[Example]) -> FloatArray:
        batches.append(len(examples))
        if len(batches) == 3:
            stop.set()
        return models.gradients(world.base_digest, world.adapter_digest, examples)

    with pytest.raises(Stopped):
        build_index(world, tmp_path, stopping, stop)
    first, batches[:] = sum(batches), []
    stop.clear()
    resumed, _ = build_index(world, tmp_path, stopping, threading.Event())
    assert first + sum(batches) == len(built[1].rows)
    assert resumed == digest
    assert not any((tmp_path / "work").iterdir())


def test_an_index_is_what_its_digest_says(
    world: World, built: tuple[str, AttributionIndex, AdapterModels]
) -> None:
    digest, index, _ = built
    assert index.save(world.store) == digest
    with pytest.raises(InvalidIndex):
        index_module.load(world.manifest_digest, world.store)


def test_an_index_holds_what_was_seen_and_the_controls_and_nothing_else(
    world: World, built: tuple[str, AttributionIndex, AdapterModels]
) -> None:
    seen = TrainingManifest.from_bytes(world.store.get_bytes(world.manifest_digest)).snapshots[0].records
    controls = {line.record_digest for line in world.lines if line.split == "control"}
    assert {row.record_digest for row in built[1].rows} == set(seen) | controls


def test_a_manifest_that_does_not_fit_its_snapshot_is_refused(world: World) -> None:
    content = json.loads(world.store.get_bytes(world.manifest_digest))
    control = next(line for line in world.lines if line.split == "control")
    content["snapshots"][0]["records"][control.record_digest] = 1
    with pytest.raises(InconsistentSource, match="was trained on"):
        read_source(world.store.put_bytes(canonical_json(content)), world.store)


def test_preconditioned_influence_is_the_formula(built: tuple[str, AttributionIndex, AdapterModels]) -> None:
    """Written out with dense matrices for one half: q^T H^-1 g over both norms, H block-diagonal."""
    index = built[1]
    rows = np.asarray(index.gradients, dtype=np.float64)
    query = rows[0] + rows[1]
    products, query_norm, norms = np.zeros(len(rows)), 0.0, np.zeros(len(rows))
    for block in index.manifest.layout:
        part = rows[:, block.span]
        fisher = part.T @ part / len(rows)
        damped = fisher + PARAMETERS.damping * np.trace(fisher) / block.size * np.eye(block.size)
        if np.trace(fisher) == 0:
            continue
        solved = np.linalg.solve(damped, query[block.span])
        products += part @ solved
        query_norm += query[block.span] @ solved
        norms += np.einsum("rd,rd->r", part, np.linalg.solve(damped, part.T).T)
    expected = products / np.sqrt(norms * query_norm)
    np.testing.assert_allclose(index.influence(query.astype(np.float32)).scores, expected, atol=2e-4)
