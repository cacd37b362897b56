"""What becomes of contributions does not depend on how their stream was cut, or on how often it was sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datanet.contribution import Record, Rejection
from datanet.decision import Judged, Result, decide
from datanet.definition import Datanet, QualityPolicy
from datanet.entities import Contributor, RecordState, StoredRecord
from datanet.quality import Verdict
from identity.digest import sha256_bytes

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CAP = 3


class Kept:
    """The rows and counts of a Datanet, as the store keeps them."""

    def __init__(self, datanet: Datanet) -> None:
        self._datanet = datanet
        self.rows: list[StoredRecord] = []
        self._order = 0

    def count(self, contributor: str, state: RecordState) -> int:
        """Rows of a contributor in a state."""
        return sum(row.contributor == contributor and row.state is state for row in self.rows)

    def take(self, contributor: str, batch: Sequence[bytes]) -> list[Result]:
        """Decides and keeps a batch."""
        who = Contributor(
            name=contributor,
            principal="p",
            display_name="",
            payout_address="",
            consent_licence="x",
            consent_time=NOW,
            accepted_count=self.count(contributor, RecordState.ACCEPTED),
            pending_count=self.count(contributor, RecordState.PENDING),
        )
        judged = [Judged(data, _verdict(data)) for data in batch]
        digests = {each.digest for each in judged}
        existing = [row for row in self.rows if row.digest in digests]
        decision = decide(judged, existing, datanet=self._datanet, contributor=who, now=NOW)
        before = self.count(contributor, RecordState.ACCEPTED)
        self.rows = [row for row in self.rows if row not in decision.replaced]
        for row in decision.added:
            self._order += 1
            self.rows.append(replace(row, order=self._order))
        assert decision.change(RecordState.ACCEPTED) == self.count(contributor, RecordState.ACCEPTED) - before
        return decision.results


def _verdict(data: bytes) -> Verdict:
    """Bytes that begin with `x` are no record, with `r` are of low quality, and are fine otherwise."""
    if data.startswith(b"x"):
        return Verdict(None, Rejection("not_json", "", "not JSON"))
    record = Record(sha256_bytes(data), data, {})
    if data.startswith(b"r"):
        return Verdict(record, Rejection("low_quality", "", "low quality"))
    return Verdict(record, None)


@pytest.fixture(scope="module")
def capped(datanet: Datanet) -> Datanet:
    """A Datanet that keeps few records of each contributor."""
    return replace(datanet, policy=QualityPolicy(max_records_per_contributor=CAP))


_CONTRIBUTORS = [f"datanets/threat-intel/contributors/{name}" for name in ("alice", "bob")]
_SENT = st.lists(
    st.tuples(st.sampled_from(_CONTRIBUTORS), st.sampled_from([b"x1", b"r1", b"a", b"b", b"c", b"d", b"e"])),
    max_size=20,
)


@settings(max_examples=200, deadline=None)
@given(_SENT)
def test_a_stream_cut_after_every_record_is_kept_as_a_whole_one(
    capped: Datanet, sent: list[tuple[str, bytes]]
) -> None:
    single, whole = Kept(capped), Kept(capped)
    for contributor, data in sent:
        single.take(contributor, [data])
    runs: list[tuple[str, list[bytes]]] = []
    for contributor, data in sent:
        if not runs or runs[-1][0] != contributor:
            runs.append((contributor, []))
        runs[-1][1].append(data)
    for contributor, batch in runs:
        whole.take(contributor, batch)
    assert [replace(row, order=0) for row in whole.rows] == [replace(row, order=0) for row in single.rows]


@settings(max_examples=200, deadline=None)
@given(_SENT)
def test_a_text_has_one_holder_and_a_cap_holds(capped: Datanet, sent: list[tuple[str, bytes]]) -> None:
    kept = Kept(capped)
    for contributor, data in sent:
        kept.take(contributor, [data])
    accepted = [row.digest for row in kept.rows if row.state is RecordState.ACCEPTED]
    assert len(accepted) == len(set(accepted))
    assert all(kept.count(name, RecordState.ACCEPTED) <= CAP for name in _CONTRIBUTORS)
    assert len({(row.contributor, row.digest) for row in kept.rows}) == len(kept.rows)


@settings(max_examples=200, deadline=None)
@given(_SENT)
def test_sending_everything_again_changes_nothing(capped: Datanet, sent: list[tuple[str, bytes]]) -> None:
    kept = Kept(capped)
    for contributor, data in sent:
        kept.take(contributor, [data])
    before = list(kept.rows)
    for contributor, data in sent:
        result = kept.take(contributor, [data])[0]
        assert result.already_present
    assert kept.rows == before


def test_bytes_that_are_no_record_have_no_digest_and_a_name_of_their_own(capped: Datanet) -> None:
    result = Kept(capped).take(_CONTRIBUTORS[0], [b"x1"])[0]
    assert result.digest == ""
    assert result.name == "datanets/threat-intel/records/" + sha256_bytes(b"x1").removeprefix("sha256:")
