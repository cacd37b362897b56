"""Decides what happens to a batch of judged contributions, given the stored records. Pure: no database, no clock."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from datanet.contribution import Rejection
from datanet.definition import Datanet
from datanet.entities import Contributor, RecordState, StoredRecord
from datanet.quality import CONTRIBUTOR_CAP, EXACT_DUPLICATE, REVIEW, Verdict
from identity.digest import digest_hex, sha256_bytes

# The outcome of these rules depends on other records, so a retry applies them again. All others always agree.
_PROVISIONAL = frozenset({CONTRIBUTOR_CAP, EXACT_DUPLICATE})


@dataclass(frozen=True)
class Judged:
    """A contribution's bytes and the rules' verdict on them."""

    data: bytes
    verdict: Verdict

    @property
    def digest(self) -> str:
        """The record's digest, or that of the bytes if they are not a record."""
        record = self.verdict.record
        return record.digest if record else sha256_bytes(self.data)


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of one contribution."""

    name: str
    """The record's resource name."""
    digest: str
    """"" if the bytes are not a record."""
    state: RecordState
    rule: str = ""
    field: str = ""
    reason: str = ""
    already_present: bool = False
    """The contributor sent the same record before; nothing changed."""


@dataclass
class Decision:
    """What to return and what to write, in the order of the batch."""

    results: list[Result] = field(default_factory=list)
    added: list[StoredRecord] = field(default_factory=list)
    replaced: list[StoredRecord] = field(default_factory=list)
    """Earlier rejections that no longer apply; the new rows replace them."""

    def change(self, state: RecordState) -> int:
        """Returns by how much the number of the contributor's records in this state changes."""
        more = sum(each.state is state for each in self.added)
        return more - sum(each.state is state for each in self.replaced)


def decide(
    batch: Iterable[Judged],
    existing: Collection[StoredRecord],
    *,
    datanet: Datanet,
    contributor: Contributor,
    now: datetime,
) -> Decision:
    """Returns the decision about a batch of one contributor.

    Args:
        batch: the contributions, in order of arrival.
        existing: every row with one of their digests, of any contributor.
        datanet: for its policy.
        contributor: with the counts before the batch.
        now: the time of new rows.
    """
    decision = Decision()
    own = {row.digest: row for row in existing if row.contributor == contributor.name}
    holders = {row.digest: row for row in existing if row.rule in ("", REVIEW)}
    free = datanet.policy.max_records_per_contributor or float("inf")
    free -= contributor.accepted_count + contributor.pending_count
    for judged in batch:
        before = own.get(judged.digest)
        if before is not None and before.rule not in _PROVISIONAL:
            decision.results.append(_result(before, judged, already_present=True))
            continue
        rejection = judged.verdict.rejection or _check_stored(judged, holders, free, datanet)
        row = _row(judged, rejection, datanet, contributor, now)
        if before is not None and rejection is not None:  # still rejected, even if by another rule
            decision.results.append(_result(before, judged, already_present=True))
            continue
        if before is not None:
            _replace(decision, before)
        decision.added.append(row)
        decision.results.append(_result(row, judged, already_present=False))
        own[row.digest] = row
        if rejection is None:
            holders[row.digest] = row
            free -= 1
    return decision


def _check_stored(
    judged: Judged, holders: dict[str, StoredRecord], free: float, datanet: Datanet
) -> Rejection | None:
    """Applies the rules that depend on the stored records."""
    if judged.digest in holders:
        message = f"another contributor has sent the same record: {datanet.name}/records/{digest_hex(judged.digest)}"
        return Rejection(EXACT_DUPLICATE, "", message)
    if free < 1:
        cap = datanet.policy.max_records_per_contributor
        return Rejection(
            CONTRIBUTOR_CAP, "", f"this contributor has {cap} records; the Datanet allows at most {cap}"
        )
    return None


def _row(
    judged: Judged, rejection: Rejection | None, datanet: Datanet, contributor: Contributor, now: datetime
) -> StoredRecord:
    verdict = judged.verdict
    if rejection is not None:
        state = RecordState.REJECTED
    else:
        state = RecordState.PENDING if datanet.policy.manual_review else RecordState.ACCEPTED
    known = rejection is not None and datanet.schema.field(rejection.field) is not None
    return StoredRecord(
        datanet=datanet.name,
        digest=judged.digest,
        contributor=contributor.name,
        state=state,
        rule=rejection.rule if rejection else "",
        # The name of an unknown field is the contributor's text, and may be what must not be stored.
        field=rejection.field if rejection and known else "",
        reason=rejection.message if rejection else "",
        # Nobody decides about a refused text again: its contributor has it, and no name would lead to it for its erasure.
        content=verdict.record.content if verdict.record and rejection is None else b"",
        create_time=now,
    )


def _replace(decision: Decision, row: StoredRecord) -> None:
    if row in decision.added:  # rejected earlier in this batch: not written yet
        decision.added.remove(row)
    else:
        decision.replaced.append(row)


def _result(row: StoredRecord, judged: Judged, already_present: bool) -> Result:
    rejection = judged.verdict.rejection
    return Result(
        name=row.name,
        digest=row.digest if judged.verdict.record else "",
        state=row.state,
        rule=row.rule,
        field=rejection.field if rejection and rejection.rule == row.rule else row.field,
        reason=row.reason,
        already_present=already_present,
    )
