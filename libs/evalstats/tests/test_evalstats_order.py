"""Items stand in one order, which only the seed decides."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from evalstats.order import first_out_of_order, item_order

suites = st.lists(st.integers(0, 6), min_size=1, max_size=40).map(
    lambda clusters: [(f"item-{number}", f"cluster-{cluster}") for number, cluster in enumerate(clusters)]
)


@settings(max_examples=60, deadline=None)
@given(suites, st.integers(0, 5), st.randoms())
def test_order_ignores_the_order_of_the_source(
    items: list[tuple[str, str]], seed: int, random: st.DataObject
) -> None:
    shuffled = sorted(items, key=lambda _: random.random())  # type: ignore[attr-defined]
    assert [items[i] for i in item_order(items, seed)] == [shuffled[i] for i in item_order(shuffled, seed)]


@settings(max_examples=60, deadline=None)
@given(suites, st.integers(0, 5), st.data())
def test_a_beginning_of_the_order_is_in_order(
    items: list[tuple[str, str]], seed: int, data: st.DataObject
) -> None:
    ordered = [items[i] for i in item_order(items, seed)]
    part = ordered[: data.draw(st.integers(1, len(ordered)))]
    assert first_out_of_order(part, seed) is None


@settings(max_examples=60, deadline=None)
@given(suites, st.integers(0, 5))
def test_every_cluster_gives_one_item_before_any_gives_two(items: list[tuple[str, str]], seed: int) -> None:
    clusters = [items[i][1] for i in item_order(items, seed)]
    different = len(set(clusters))
    assert len(set(clusters[:different])) == different


def test_order_is_pinned_and_another_seed_is_another_order() -> None:
    items = [(f"item-{number}", f"cluster-{number % 4}") for number in range(8)]
    assert item_order(items, 0) == [7, 4, 6, 5, 3, 0, 2, 1]
    assert item_order(items, 1) != item_order(items, 0)


def test_an_item_out_of_order_is_found() -> None:
    items = [(f"item-{number}", f"item-{number}") for number in range(9)]
    ordered = [items[i] for i in item_order(items, 3)]
    assert first_out_of_order(ordered, 3) is None
    ordered[4], ordered[7] = ordered[7], ordered[4]
    assert first_out_of_order(ordered, 3) == 4
