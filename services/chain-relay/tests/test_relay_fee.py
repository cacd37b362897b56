"""Fees in equal payouts plus dust, to the base unit, whatever the numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain_relay.fee import Rates, fee_of
from chain_relay.split import PPM, Accounts, Answer, ShareOf, SplitBps, largest_remainder, split_fee

AMOUNT = st.integers(0, 10**24)
ACCOUNTS = Accounts("0xplatform", "0xstakers", {"owner": "0xowner"})
HALVES = SplitBps(platform=1000, model_owner=2500, stakers=1500, contributors=5000)


@st.composite
def splits(draw: st.DrawFn) -> SplitBps:
    first, second, third = sorted(draw(st.tuples(*[st.integers(0, 10_000)] * 3)))
    return SplitBps(
        platform=first, model_owner=second - first, stakers=third - second, contributors=10_000 - third
    )


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    cuts = sorted(draw(st.lists(st.integers(0, PPM), max_size=12)))
    parts = [high - low for low, high in zip([0, *cuts], [*cuts, PPM], strict=True)]
    shares = [ShareOf(f"datanets/d/contributors/c{n}", ppm, f"0x{n}") for n, ppm in enumerate(parts[1:])]
    datanets = draw(st.sets(st.sampled_from(["datanets/a", "datanets/b", "datanets/c"])))
    return Answer(draw(st.sampled_from(["", "owner", "held"])), shares, parts[0], dict.fromkeys(datanets, ""))


def test_each_token_term_is_rounded_down_on_its_own() -> None:
    assert fee_of(Rates(rate_in=999, rate_out=1999, platform_fee=7), 1, 1) == 0 + 1 + 7
    assert fee_of(Rates(rate_in=3_000, rate_out=5_000, platform_fee=0), 1500, 10) == 4500 + 50


@given(AMOUNT, AMOUNT, AMOUNT, st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_fee_is_at_most_two_units_below_the_exact_sum(
    rate_in: int, rate_out: int, flat: int, tokens_in: int, tokens_out: int
) -> None:
    fee = fee_of(Rates(rate_in=rate_in, rate_out=rate_out, platform_fee=flat), tokens_in, tokens_out)
    exact_in_thousandths = tokens_in * rate_in + tokens_out * rate_out + 1000 * flat
    assert 0 <= exact_in_thousandths - 1000 * fee < 2000


@given(AMOUNT, splits(), answers())
def test_fee_is_payouts_plus_dust_exactly(fee: int, bps: SplitBps, answer: Answer) -> None:
    payouts, dust = split_fee(fee, bps, answer, ACCOUNTS)
    assert sum(payout.amount for payout in payouts) + dust == fee
    assert 0 <= dust <= 3
    assert all(payout.amount > 0 for payout in payouts)


@given(AMOUNT, answers())
def test_contributors_are_within_one_unit_of_their_exact_share(fee: int, answer: Answer) -> None:
    payouts, _ = split_fee(fee, HALVES, answer, ACCOUNTS)
    paid = {payout.beneficiary: payout.amount for payout in payouts if payout.kind == "contributor"}
    pool = fee * 5000 // 10_000
    for share in answer.shares:
        assert abs(paid.get(share.contributor, 0) * PPM - pool * share.ppm) < PPM


@given(AMOUNT, st.dictionaries(st.text("abc", min_size=1), st.integers(0, PPM), min_size=1))
def test_largest_remainder_leaves_nothing_and_ignores_order(amount: int, weights: dict[str, int]) -> None:
    if not sum(weights.values()):
        weights["a"] = 1
    parts = largest_remainder(amount, weights)
    assert sum(parts.values()) == amount
    assert parts == largest_remainder(amount, dict(reversed(weights.items())))


def test_what_is_not_attributable_goes_to_the_treasuries_not_to_contributors() -> None:
    treasuries = {"datanets/a": "0xa", "datanets/b": ""}
    answer = Answer("owner", [ShareOf("datanets/a/contributors/c", 400_000, "0xc")], 600_000, treasuries)
    payouts, dust = split_fee(20_000, HALVES, answer, ACCOUNTS)
    assert {(p.kind, p.beneficiary): p.amount for p in payouts} == {
        ("stakers", "stakers"): 3000,
        ("model_owner", "owner"): 5000,
        ("platform", "platform"): 2000,
        ("contributor", "datanets/a/contributors/c"): 4000,
        ("treasury", "datanets/a"): 3000,
        ("treasury", "datanets/b"): 3000,
    }
    assert dust == 0


def test_a_base_model_has_no_owner_and_no_datanet_so_the_platform_keeps_their_parts() -> None:
    payouts, _ = split_fee(10_000, HALVES, Answer("", [], PPM, {}), ACCOUNTS)
    assert {(p.kind, p.beneficiary): p.amount for p in payouts} == {
        ("stakers", "stakers"): 1500,
        ("platform", "platform"): 3500,
        ("treasury", "platform"): 5000,
    }


def test_a_split_that_is_not_whole_and_shares_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError, match="10000"):
        SplitBps(platform=1, model_owner=2, stakers=3, contributors=4)
    with pytest.raises(ValueError, match="999999 ppm"):
        split_fee(1, HALVES, Answer("", [], PPM - 1, {}), ACCOUNTS)
