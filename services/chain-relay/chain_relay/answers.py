"""A scored answer enters: what it costs, who gets which part, written once."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from openledger.attribution.v1 import attribution_pb2
from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from chain_relay.fee import Rates, fee_of
from chain_relay.settings import checked_address
from chain_relay.split import CONTRIBUTOR, TREASURY, Accounts, Answer, ShareOf, SplitBps, split_fee
from chain_relay.tables import Earning, JournalEntry, ScoredAnswer
from identity.digest import InvalidDigest, digest_to_bytes, sha256_bytes
from identity.names import InferenceName, InvalidName
from servicekit.database import utc_now
from servicekit.events import InvalidEvent
from servicekit.telemetry import current_traceparent


@dataclass(frozen=True)
class Terms:
    """What answers cost and how fees are split."""

    rates: Rates
    split: SplitBps
    accounts: Accounts


def record_answer(session: Session, scored: attribution_pb2.AttributionScored, terms: Terms) -> bool:
    """Writes an answer with its journal; False when it was known.

    Raises InvalidEvent for one that can never be settled: wrong digests, names or addresses, shares that do not
    add up, or another attribution of an answer that has one.
    """
    attribution = scored.attribution
    _check(attribution)
    known = session.scalar(
        select(ScoredAnswer.record_digest).where(ScoredAnswer.inference == attribution.inference)
    )
    if known is not None:
        if known != attribution.digest:
            raise InvalidEvent(
                "CONFLICTING_ATTRIBUTION",
                f"{attribution.inference} was settled with {known}, not {attribution.digest}",
            )
        return False
    answer = _answer(scored)
    usage = attribution.usage
    fee = fee_of(terms.rates, usage.input_tokens, usage.output_tokens)
    payouts, dust = split_fee(fee, terms.split, answer, terms.accounts)
    model = attribution.model
    session.add(
        ScoredAnswer(
            inference=attribution.inference,
            model_digest=model.version_digest or model.base_digest,
            report_digest=model.report_digest,
            record_digest=attribution.digest,
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
                {"inference": attribution.inference, "line": line, **asdict(payout)}
                for line, payout in enumerate(payouts)
            ],
        )
    _release_named(session, answer)
    return True


def _release_named(session: Session, answer: Answer) -> None:
    """Releases what was held for those whom this answer gives an address; almost always there is nothing."""
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
    """Gives what was held for a beneficiary to the address that is now known.

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


def _check(attribution: attribution_pb2.Attribution) -> None:
    model = attribution.model
    try:
        InferenceName.parse(attribution.inference)
        for digest in (attribution.digest, model.version_digest or model.base_digest):
            digest_to_bytes(digest)
        if model.report_digest:
            digest_to_bytes(model.report_digest)
    except (InvalidName, InvalidDigest) as error:
        raise InvalidEvent("BAD_NAME", str(error)) from None
    found = sha256_bytes(attribution.canonical_json)
    if found != attribution.digest:
        raise InvalidEvent(
            "WRONG_DIGEST", f"{attribution.name} says {attribution.digest}, its record is {found}"
        )
    total = sum(share.ppm for share in attribution.shares) + attribution.unattributed_ppm
    if total != 1_000_000 or any(share.ppm < 0 for share in attribution.shares):
        raise InvalidEvent("WRONG_SHARES", f"{attribution.name}: shares and unattributed are {total} ppm")
    contributors = [share.contributor for share in attribution.shares]
    if len(set(contributors)) != len(contributors) or attribution.unattributed_ppm < 0:
        raise InvalidEvent(
            "WRONG_SHARES", f"{attribution.name}: a contributor stands twice, or a share is negative"
        )


def _answer(scored: attribution_pb2.AttributionScored) -> Answer:
    attribution = scored.attribution
    try:
        return Answer(
            model_owner=attribution.model_owner,
            shares=[
                ShareOf(share.contributor, share.ppm, checked_address(share.payout_address))
                for share in attribution.shares
            ],
            unattributed_ppm=attribution.unattributed_ppm,
            treasuries={
                datanet: checked_address(address)
                for datanet, address in sorted(scored.treasury_addresses.items())
            },
        )
    except ValueError as error:
        raise InvalidEvent("BAD_ADDRESS", f"{attribution.name}: {error}") from None
