"""Shares add up, copies and controls earn nothing, and chance is attributed at no more than the nominal
rate."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from attribution.baselines import lexical_shares, naive_shares
from attribution.clusters import CONTROL, TRAINED, ClusterTable, IndexRow
from attribution.null import holm, permutation_p_value
from attribution.scoring import brought_by_tuning
from attribution.shares import PPM, ShareParameters, attribute, largest_remainder

QUICK = ShareParameters(permutations=399, resamples=50)


def name(contributor: str) -> str:
    return f"datanets/d/contributors/{contributor}"


def row(
    number: int,
    contributor: str,
    split: str = TRAINED,
    cluster: int | None = None,
    credited: str | None = None,
) -> IndexRow:
    return IndexRow(
        record_digest=f"r{number:04}",
        cluster=f"r{number if cluster is None else cluster:04}",
        contributor=name(contributor),
        credited=name(credited or contributor),
        split=split,
        times_seen=int(split == TRAINED),
    )


@settings(max_examples=60)
@given(
    arrays.arrays(np.float64, st.integers(1, 60), elements=st.floats(-1, 1)),
    arrays.arrays(np.float64, st.integers(0, 60), elements=st.floats(-1, 1)),
    st.integers(1, 5),
    st.integers(0, 99),
)
def test_shares_and_unattributed_add_up_to_a_million(
    trained: np.ndarray, control: np.ndarray, contributors: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    owners = generator.integers(-1, contributors, size=len(trained))
    shares = attribute(
        trained, owners, control, contributors=contributors, parameters=QUICK, generator=generator
    )
    assert sum(shares.ppm) + shares.unattributed_ppm == PPM
    assert min((*shares.ppm, shares.unattributed_ppm)) >= 0
    assert bool(shares.reason) == (not any(shares.ppm))


@given(
    st.lists(st.floats(0, 1e6), min_size=1, max_size=20).filter(lambda weights: sum(weights) > 0),
    st.integers(0, PPM),
)
def test_largest_remainder_is_exact_and_never_off_by_one_or_more(weights: list[float], total: int) -> None:
    parts = largest_remainder(weights, total)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part - weight / sum(weights) * total) < 1 + 1e-6


def test_holm_steps_down() -> None:
    corrected = holm(np.array([0.01, 0.04, 0.03, 0.005]))
    np.testing.assert_allclose(corrected, [0.03, 0.06, 0.06, 0.02])


def test_planted_influence_goes_to_its_contributor_alone() -> None:
    generator = np.random.default_rng(0)
    trained, control = generator.normal(0, 0.05, 200), generator.normal(0, 0.05, 100)
    owners = np.arange(200) % 5
    trained[owners == 2] += 0.4
    shares = attribute(
        trained, owners, control, contributors=5, parameters=ShareParameters(), generator=generator
    )
    assert [place for place, ppm in enumerate(shares.ppm) if ppm > PPM // 20] == [2]
    assert shares.ppm[2] > PPM * 8 // 10
    assert shares.lower_ppm[2] < shares.ppm[2] < shares.upper_ppm[2]


def test_false_attribution_at_random_influences_is_at_most_the_nominal_rate() -> None:
    """Of answers that no contributor shaped; a family-wise level of 5% and 400 answers allow 5% +- 2.2%."""
    generator = np.random.default_rng(1)
    owners = np.arange(240) % 8
    wrong, attributed = 0, 0
    for _ in range(400):
        trained, control = generator.normal(0.02, 0.1, 240), generator.normal(0.02, 0.1, 60)
        shares = attribute(trained, owners, control, contributors=8, parameters=QUICK, generator=generator)
        wrong += any(shares.ppm)
        attributed += PPM - shares.unattributed_ppm
    assert wrong / 400 <= 0.072
    assert attributed / 400 < 0.03 * PPM


def test_permutation_p_values_are_uniform_or_larger_under_the_null() -> None:
    generator = np.random.default_rng(2)
    p_values = [
        permutation_p_value(
            generator.normal(size=25),
            generator.normal(size=60),
            quantile=0.95,
            permutations=199,
            generator=generator,
        )
        for _ in range(400)
    ]
    for level in (0.05, 0.2):
        assert np.mean(np.array(p_values) <= level) <= level + 2 * (level * (1 - level) / 400) ** 0.5


def outcome_with_copies(copies: int) -> tuple[dict[str, int], dict[str, int]]:
    """(shares, naive shares) by contributor, when a copier resubmits the author's first record `copies`
    times."""
    scores = np.random.default_rng(3).normal(0, 0.05, 140)
    scores[:20] += 0.5
    rows = [row(i, "author" if i < 20 else "other") for i in range(40)]
    rows += [row(40 + i, "someone", CONTROL) for i in range(100)]
    rows += [row(200 + i, "copier", cluster=0, credited="author") for i in range(copies)]
    scores = np.concatenate([scores, np.full(copies, scores[0])])
    table = ClusterTable.of(rows)
    shares = attribute(
        table.trained_means(scores),
        table.owners,
        table.control_means(scores),
        contributors=len(table.contributors),
        parameters=ShareParameters(),
        generator=np.random.default_rng(4),
    )
    naive = naive_shares(table, scores)
    return (
        dict(zip(table.contributors, shares.ppm, strict=True)),
        dict(zip(table.contributors, naive.ppm, strict=True)),
    )


def test_no_number_of_copies_changes_any_share_or_earns_the_copier_anything() -> None:
    shares = [outcome_with_copies(copies)[0] for copies in (1, 7, 100)]
    assert shares[0] == shares[1] == shares[2]
    assert shares[0][name("copier")] == 0
    assert shares[0][name("author")] > PPM // 2


def test_naive_normalisation_would_have_paid_for_every_copy() -> None:
    assert outcome_with_copies(100)[1][name("copier")] > outcome_with_copies(7)[1][name("copier")] > 0


def test_naive_normalisation_pays_the_copier_and_the_controls() -> None:
    rows = [
        row(0, "author"),
        row(1, "copier", cluster=0, credited="author"),
        row(2, "copier", cluster=0, credited="author"),
        row(3, "someone", CONTROL),
    ]
    table = ClusterTable.of(rows)
    naive = naive_shares(table, np.array([0.5, 0.5, 0.5, 0.5]))
    by_name = dict(zip(table.contributors, naive.ppm, strict=True))
    assert by_name == {name("author"): 250_000, name("copier"): 500_000}
    assert naive.control_ppm == 250_000


def test_a_cluster_whose_author_has_left_is_not_credited() -> None:
    table = ClusterTable.of(
        [
            IndexRow(
                record_digest="r1",
                cluster="r0",
                contributor=name("copier"),
                credited="",
                split=TRAINED,
                times_seen=1,
            )
        ]
    )
    assert list(table.owners) == [-1]
    assert lexical_shares(table, np.array([3.0])) == (0,)


def test_too_few_controls_attribute_nothing_and_say_so() -> None:
    owners = np.zeros(10, dtype=np.int64)
    shares = attribute(
        np.ones(10),
        owners,
        np.zeros(19),
        contributors=1,
        parameters=QUICK,
        generator=np.random.default_rng(0),
    )
    assert shares.unattributed_ppm == PPM
    assert "19 control clusters are too few" in shares.reason


def test_no_positive_influence_attributes_nothing() -> None:
    owners = np.zeros(10, dtype=np.int64)
    shares = attribute(
        -np.ones(10),
        owners,
        np.zeros(50),
        contributors=1,
        parameters=QUICK,
        generator=np.random.default_rng(0),
    )
    assert (shares.ppm, shares.unattributed_ppm) == ((0,), PPM)


def test_relevant_controls_do_not_hide_relevant_records() -> None:
    """A tenth of all records, trained and control alike, is relevant to the answer: the trained tenth is paid."""
    generator = np.random.default_rng(5)
    trained, control = generator.normal(0, 0.05, 400), generator.normal(0, 0.05, 100)
    trained[::10] += 0.4
    control[::10] += 0.4
    shares = attribute(
        trained,
        np.arange(400) % 5,
        control,
        contributors=5,
        parameters=ShareParameters(),
        generator=generator,
    )
    assert shares.unattributed_ppm < PPM // 2
    # every tenth record belongs to contributor 0
    assert [place for place, ppm in enumerate(shares.ppm) if ppm > PPM // 10] == [0]


@given(st.floats(0, 1))
def test_what_the_base_would_have_said_anyway_is_not_attributed(brought: float) -> None:
    generator = np.random.default_rng(0)
    trained, control = generator.normal(0, 0.05, 200), generator.normal(0, 0.05, 100)
    owners = np.arange(200) % 5
    trained[owners == 2] += 0.4
    shares = attribute(
        trained, owners, control, contributors=5, parameters=QUICK, generator=generator, brought=brought
    )
    assert sum(shares.ppm) <= brought * PPM + 1
    assert sum(shares.ppm) + shares.unattributed_ppm == PPM


def test_the_part_that_fine_tuning_brought_is_one_minus_the_ratio_of_probabilities() -> None:
    assert brought_by_tuning(math.log(0.8), math.log(0.2)) == pytest.approx(0.75)
    assert brought_by_tuning(math.log(0.2), math.log(0.8)) == 0.0
    assert brought_by_tuning(-1.0, -1.0) == 0.0
