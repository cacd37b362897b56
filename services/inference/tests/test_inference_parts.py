"""Claims about sampling, residency and the catalogue."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import torch

from inference.catalogue import SERVED_MODELS, Catalogue, Version, VersionState, size_in_response
from inference.residency import Residency
from inference.sampling import Sampler, Sampling, choose
from servicekit.errors import FailedPrecondition, InvalidArgument, NotFound
from servicekit.lists import Query

BASE = "sha256:" + "b" * 64
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_draws_follow_temperature_and_nucleus() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    plain = Sampler(Sampling(temperature=1.0, seed=1))
    counts = Counter(plain.draw(logits) for _ in range(4000))
    for token, probability in enumerate([0.5, 0.3, 0.15, 0.05]):
        assert counts[token] / 4000 == pytest.approx(probability, abs=0.03)
    nucleus = Sampler(Sampling(temperature=1.0, top_p=0.7, seed=1))
    kept = Counter(nucleus.draw(logits) for _ in range(4000))
    assert set(kept) == {0, 1}
    assert kept[0] / 4000 == pytest.approx(0.5 / 0.8, abs=0.03)
    assert {Sampler(Sampling(temperature=1.0, top_p=0.0, seed=s)).draw(logits) for s in range(20)} == {0}


def test_log_probabilities_are_before_temperature() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.5]])
    choice = choose(logits, [Sampler(Sampling(temperature=5.0, seed=4))])[0]
    assert choice.log_probability == pytest.approx(float(torch.log_softmax(logits[0], -1)[choice.token]))


def test_the_largest_seed_is_a_seed() -> None:
    Sampler(Sampling(temperature=1, seed=2**64 - 1)).draw(torch.zeros(4))


def test_least_recently_used_adapter_leaves_first_and_a_pinned_one_never() -> None:
    residency = Residency(2)
    assert residency.slot_of("") == 0
    first, second = residency.place("a"), residency.place("b")
    residency.pin("a")
    assert residency.place("c") == second
    assert residency.slot_of("b") is None
    residency.pin("c")
    assert residency.place("d") is None
    residency.unpin("a")
    assert residency.place("d", evict=False) is None
    assert residency.place("d") == first
    residency.remove("d")
    assert residency.place("e", evict=False) == first


def version(name: str, state: VersionState, minutes: int = 0, base: str = BASE) -> Version:
    return Version(
        name=name,
        state=state,
        version_digest=f"v-{name}",
        base_digest=base,
        adapter_digest=f"a-{name}",
        report_digest="r",
        owner="owner",
        changed=NOW + timedelta(minutes=minutes),
    )


def test_a_model_means_the_version_promoted_last() -> None:
    catalogue = Catalogue(
        "baseModels/tiny",
        BASE,
        [
            version("models/m/versions/2", VersionState.PROMOTED, 1),
            version("models/m/versions/10", VersionState.RETIRED, 5),
            version("models/m/versions/9", VersionState.PROMOTED, 2),
        ],
    )
    assert catalogue.resolve("models/m").name == "models/m/versions/9"
    assert catalogue.resolve("models/m/versions/2").is_default is False
    assert [served.name for served in catalogue.served()] == [
        "baseModels/tiny",
        "models/m/versions/2",
        "models/m/versions/9",
    ]
    assert catalogue.resolve("baseModels/tiny").adapter_digest == ""


def test_served_models_are_filtered_and_sorted() -> None:
    versions = [
        version("models/m/versions/2", VersionState.PROMOTED, 1),
        version("models/m/versions/10", VersionState.PROMOTED, 2),
        version("models/a/versions/1", VersionState.PROMOTED),
    ]
    served = Catalogue("baseModels/tiny", BASE, versions).served()

    def names(**query: Any) -> list[str]:
        page = SERVED_MODELS.page_of(served, Query(**query), bytes_of=size_in_response)
        assert page.total_size >= len(page.items)
        return [one.name for one in page.items]

    in_order = ["baseModels/tiny", "models/a/versions/1", "models/m/versions/2", "models/m/versions/10"]
    assert names() == in_order
    assert names(order_by="name desc")[-1] == "baseModels/tiny"
    assert names(filter="is_default = true") == ["models/a/versions/1", "models/m/versions/10"]
    assert names(filter='name = "models/m/*"') == in_order[2:]
    first = SERVED_MODELS.page_of(served, Query(page_size=3), bytes_of=size_in_response)
    assert first.total_size == 4
    assert names(page_size=3, page_token=first.next_page_token) == in_order[3:]
    with pytest.raises(InvalidArgument):
        names(filter="is_default = true", page_token=first.next_page_token)


def test_what_is_not_served_says_why() -> None:
    catalogue = Catalogue(
        "baseModels/tiny",
        BASE,
        [
            version("models/m/versions/1", VersionState.BLOCKED),
            version("models/o/versions/1", VersionState.PROMOTED, base="sha256:other"),
        ],
    )
    with pytest.raises(NotFound) as unknown:
        catalogue.resolve("models/unknown")
    assert "models/unknown" in unknown.value.message
    with pytest.raises(NotFound):
        catalogue.resolve("baseModels/other")
    with pytest.raises(FailedPrecondition) as blocked:
        catalogue.resolve("models/m/versions/1")
    assert blocked.value.reason == "MODEL_VERSION_BLOCKED"
    with pytest.raises(FailedPrecondition) as unpromoted:
        catalogue.resolve("models/m")
    assert unpromoted.value.reason == "MODEL_HAS_NO_PROMOTED_VERSION"
    with pytest.raises(FailedPrecondition) as foreign:
        catalogue.resolve("models/o/versions/1")
    assert foreign.value.reason == "OTHER_BASE_MODEL"
