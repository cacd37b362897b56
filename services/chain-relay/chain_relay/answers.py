"""Records an attributed answer once: its fee, and the part of each beneficiary."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from chain_relay.fee import Rates, fee_of
from chain_relay.split import CONTRIBUTOR, TREASURY, Accounts, Answer, SplitBps, split_fee
from chain_relay.store.tables import Earning, JournalEntry, ScoredAnswer
from servicekit.database import utc_now
from servicekit.eventlog.events import InvalidEvent
from servicekit.telemetry.traces import current_traceparent


@dataclass(frozen=True)
class Terms:
    """What answers cost and how fees are split."""

    rates: Rates
    split: SplitBps
    accounts: Accounts


@dataclass(frozen=True, kw_only=True)
class AttributedAnswer:
    """One answer with its attribution."""

    inference: str
    model_digest: str
    """Of the model version; of the base model where the base answered."""
    report_digest: str
    """Of the evaluation report; "" for a base model."""
    record_digest: str
    """Of the attribution record."""
    input_tokens: int
    output_tokens: int
    division: Answer
    """How its fee is divided."""


def record_answer(session: Session, answer: AttributedAnswer, terms: Terms) -> bool:
    """Writes an answer with its journal. Returns False when it was already written.

    Raises:
        InvalidEvent: the answer has already been settled with another attribution.
    """
    known = session.scalar(
        select(ScoredAnswer.record_digest).where(ScoredAnswer.inference == answer.inference)
    )
    if known is not None:
        if known != answer.record_digest:
            raise InvalidEvent(
                "CONFLICTING_ATTRIBUTION",
                f"{answer.inference} was settled with {known}, not {answer.record_digest}",
            )
        return False
    fee = fee_of(terms.rates, answer.input_tokens, answer.output_tokens)
    payouts, dust = split_fee(fee, terms.split, answer.division, terms.accounts)
    session.add(
        ScoredAnswer(
            inference=answer.inference,
            model_digest=answer.model_digest,
            report_digest=answer.report_digest,
            record_digest=answer.record_digest,
            fee=fee,
            dust=dust,
            receive_time=utc_now(),
            traceparent=current_traceparent(),
        )
    )
    session.flush()
    if payouts:
        session.execute(
            insert(JournalEntry),
            [
                {"inference": answer.inference, "line": line, **asdict(payout)}
                for line, payout in enumerate(payouts)
            ],
        )
    _release_named(session, answer.division)
    return True


def _release_named(session: Session, answer: Answer) -> None:
    """Releases what was held for beneficiaries that this answer gives an address; almost always nothing is."""
    given = {(CONTRIBUTOR, share.contributor): share.address for share in answer.shares}
    given |= {(TREASURY, datanet): address for datanet, address in answer.treasuries.items()}
    named = {key: address for key, address in given.items() if address}
    held = (
        select(JournalEntry.kind, JournalEntry.beneficiary)
        .where(
            JournalEntry.kind.in_({kind for kind, _ in named}),
            JournalEntry.beneficiary.in_({beneficiary for _, beneficiary in named}),
            JournalEntry.address == "",
        )
        .distinct()
    )
    for kind, beneficiary in session.execute(held).all():
        if (kind, beneficiary) in named:
            release_held(session, kind, beneficiary, named[kind, beneficiary])


def release_held(session: Session, kind: str, beneficiary: str, address: str) -> None:
    """Moves what was held for a beneficiary to the address that is now known.

    Only what was held moves: earnings under an earlier address stay there, because cumulative claims cannot take
    back what that address may already have claimed.
    """
    if not address:
        return
    held = (
        select(Earning)
        .where(Earning.kind == kind, Earning.beneficiary == beneficiary, Earning.address == "")
        .order_by(Earning.batch_seq)
    )
    for earning in session.scalars(held).all():
        there = session.get(Earning, (earning.batch_seq, kind, beneficiary, address))
        if there is None:
            there = Earning(
                batch_seq=earning.batch_seq, kind=kind, beneficiary=beneficiary, address=address, amount=0
            )
            session.add(there)
        there.amount += earning.amount
        session.delete(earning)
    session.execute(
        update(JournalEntry)
        .where(JournalEntry.kind == kind, JournalEntry.beneficiary == beneficiary, JournalEntry.address == "")
        .values(address=address)
    )
