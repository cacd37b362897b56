"""An attributed answer enters the journal once, in full, or not at all."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from openledger.attribution.v1 import attribution_pb2
from sqlalchemy import Engine, select

from chain_relay.answers import Terms, record_answer, release_held
from chain_relay.convert import attributed_answer
from chain_relay.fee import Rates
from chain_relay.sealing import seal
from chain_relay.split import Accounts, SplitBps
from chain_relay.store.tables import Earning, JournalEntry, ScoredAnswer
from identity.digest import sha256_bytes
from openledger_testing import attributed_answers
from servicekit.database import reading, transaction
from servicekit.eventlog.events import InvalidEvent
from servicekit.objects import ObjectStore

TERMS = Terms(
    Rates(rate_in=10_000, rate_out=20_000, platform_fee=500),
    SplitBps(platform=1000, model_owner=2500, stakers=500, contributors=6000),
    Accounts("", "", {}),
)
ESET = f"{attributed_answers.DATANET}/contributors/eset"


def record(database: Engine, event: attribution_pb2.AttributionScored) -> bool:
    with transaction(database) as session:
        return record_answer(session, attributed_answer(event), TERMS)


def entries(database: Engine) -> dict[tuple[str, str], tuple[str, int]]:
    with reading(database) as session:
        rows = session.scalars(select(JournalEntry)).all()
    return {(row.kind, row.beneficiary): (row.address, row.amount) for row in rows}


def test_every_part_of_a_fee_is_written(database: Engine) -> None:
    assert record(database, attributed_answers.scored(input_tokens=1000, output_tokens=100))
    fee = 10_000 + 2_000 + 500
    assert entries(database) == {
        ("stakers", "stakers"): ("", 625),
        ("model_owner", "vendor"): ("", 3125),
        ("platform", "platform"): ("", 1250),
        ("contributor", ESET): (attributed_answers.ADDRESSES["eset"], 3750),
        ("contributor", f"{attributed_answers.DATANET}/contributors/unit42"): (
            attributed_answers.ADDRESSES["unit42"],
            2250,
        ),
        ("treasury", attributed_answers.DATANET): (attributed_answers.TREASURY, 1500),
    }
    assert sum(amount for _, amount in entries(database).values()) == fee


def test_the_same_attribution_twice_is_written_once(database: Engine) -> None:
    event = attributed_answers.scored()
    assert record(database, event)
    before = entries(database)
    assert not record(database, event)
    assert entries(database) == before


def test_another_attribution_of_a_settled_answer_is_refused(database: Engine) -> None:
    event = attributed_answers.scored()
    record(database, event)
    other = attributed_answers.scored(inference=event.attribution.inference, shares={"talos": 1_000_000})
    with pytest.raises(InvalidEvent, match="CONFLICTING_ATTRIBUTION"):
        record(database, other)


def _tamper(event: attribution_pb2.AttributionScored) -> None:
    event.attribution.canonical_json += b" "


def _overpay(event: attribution_pb2.AttributionScored) -> None:
    event.attribution.shares[0].ppm += 1


def _twice(event: attribution_pb2.AttributionScored) -> None:
    event.attribution.shares[1].contributor = event.attribution.shares[0].contributor


def _negative(event: attribution_pb2.AttributionScored) -> None:
    event.attribution.shares[0].ppm -= 600_000
    event.attribution.shares[1].ppm += 600_000


def _misname(event: attribution_pb2.AttributionScored) -> None:
    event.attribution.inference = "inferences/7"


def _mistype(event: attribution_pb2.AttributionScored) -> None:
    event.attribution.shares[0].payout_address = (
        attributed_answers.ADDRESSES["eset"].swapcase().replace("0X", "0x")
    )


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_tamper, "WRONG_DIGEST"),
        (_overpay, "WRONG_SHARES"),
        (_twice, "WRONG_SHARES"),
        (_negative, "WRONG_SHARES"),
        (_misname, "BAD_NAME"),
        (_mistype, "BAD_ADDRESS"),
    ],
)
def test_an_event_that_can_never_be_settled_is_refused_and_leaves_nothing(
    database: Engine, spoil: Callable[[attribution_pb2.AttributionScored], None], reason: str
) -> None:
    event = attributed_answers.scored()
    spoil(event)
    with pytest.raises(InvalidEvent, match=reason):
        record(database, event)
    with reading(database) as session:
        assert session.scalars(select(ScoredAnswer)).all() == []
    assert entries(database) == {}


def test_a_base_models_answer_is_named_by_the_base_and_has_no_report(database: Engine) -> None:
    event = attributed_answers.scored(shares={}, owner="")
    event.attribution.model.version_digest = event.attribution.model.report_digest = ""
    event.treasury_addresses.clear()
    record(database, event)
    with reading(database) as session:
        answer = session.scalars(select(ScoredAnswer)).one()
    assert (answer.model_digest, answer.report_digest) == (sha256_bytes(b"base"), "")
    assert {kind for kind, _ in entries(database)} == {"platform", "stakers", "treasury"}


def test_what_is_held_goes_to_the_first_address_and_stays_there(database: Engine, tmp_path: object) -> None:
    objects = ObjectStore(f"{tmp_path}/objects")
    record(database, attributed_answers.scored(shares={"eset": 1_000_000}, addresses={}))
    with transaction(database) as session:
        assert seal(session, objects, 10) is not None
    first, second = attributed_answers.ADDRESSES["eset"], attributed_answers.ADDRESSES["talos"]
    assert entries(database)["contributor", ESET][0] == ""
    record(
        database, attributed_answers.scored(shares={"talos": 1_000_000, "eset": 0}, addresses={"eset": first})
    )
    with transaction(database) as session:
        release_held(session, "contributor", ESET, second)
    with reading(database) as session:
        journal = session.scalars(select(JournalEntry.address).where(JournalEntry.beneficiary == ESET)).all()
        earning = session.scalars(select(Earning.address).where(Earning.beneficiary == ESET)).all()
    assert journal == [first]
    assert earning == [first]
