"""The facts of this service: what reconciliation compares with the event log and with other services (`servicekit.audit`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from openledger.audit.v1.audit_pb2 import (
    AttributedAnswer,
    ContributorShare,
    Fact,
    KnownModelVersion,
    KnownSnapshot,
)
from sqlalchemy import select
from sqlalchemy.orm import Session, load_only

from attribution.store import AnswerRow, ModelVersionRow, ShareRow, TreasuryRow
from servicekit.audit import ROWS, stamp

_COLUMNS = (
    AnswerRow.id,
    AnswerRow.pending,
    AnswerRow.score_time,
    AnswerRow.digest,
    AnswerRow.record,
    AnswerRow.unattributed_ppm,
)


def facts(session: Session) -> Iterator[Fact]:
    """Yields the newest snapshot of each Datanet and the model versions that this service knows, and every answer."""
    for datanet, number in session.execute(select(TreasuryRow.datanet, TreasuryRow.snapshot)).tuples():
        yield Fact(known_snapshot=KnownSnapshot(name=f"{datanet}/snapshots/{number}"))
    for name in session.scalars(select(ModelVersionRow.name), execution_options={"yield_per": ROWS}):
        yield Fact(known_model_version=KnownModelVersion(name=name))
    answers = select(AnswerRow).options(load_only(*_COLUMNS)).order_by(AnswerRow.id)
    for rows in session.scalars(answers, execution_options={"yield_per": ROWS}).partitions():
        yield from _answers(session, rows)


def _answers(session: Session, rows: Sequence[AnswerRow]) -> Iterator[Fact]:
    shares: dict[str, list[ContributorShare]] = defaultdict(list)
    of_rows = select(ShareRow.answer, ShareRow.contributor, ShareRow.ppm).where(
        ShareRow.answer.in_([row.id for row in rows])
    )
    for answer, contributor, ppm in session.execute(of_rows).tuples():
        shares[answer].append(ContributorShare(contributor=contributor, ppm=ppm))
    for row in rows:
        fact = AttributedAnswer(
            inference=f"inferences/{row.id}",
            pending=row.pending,
            digest=row.digest,
            record=row.record,
            unattributed_ppm=row.unattributed_ppm,
            shares=shares[row.id],
        )
        if row.score_time is not None:
            fact.score_time.CopyFrom(stamp(row.score_time))
        yield Fact(attributed_answer=fact)
