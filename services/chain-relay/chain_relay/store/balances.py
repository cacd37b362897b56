"""Reads what beneficiaries earned, and the reward roots that pay it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import select
from sqlalchemy.orm import Session

from chain_relay.store.tables import (
    Batch,
    BatchState,
    Earning,
    Outcome,
    RewardRoot,
    RewardRootState,
    SignedTransaction,
)
from identity.names import RewardRootName
from servicekit.errors import NotFound
from servicekit.lists import INTEGER, TEXT, Field, Kind, Listing, choices, numbered

_ON_CHAIN = (BatchState.COMMITTED, BatchState.SETTLED, BatchState.FINAL)


@dataclass(frozen=True, kw_only=True)
class Earned:
    """What one beneficiary earned at one address."""

    kind: str
    beneficiary: str
    address: str
    amount: int


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Base units over all batches that are on chain: fees = payouts + dust."""

    fees: int
    payouts: int
    dust: int


def _amount(text: str) -> Decimal:
    if not text.isascii() or not text.isdigit() or len(text) > 78:
        raise ValueError
    return Decimal(text)


_AMOUNT = Kind(form="an amount in base units such as 1000000000000000000", parse=_amount)

BALANCES = Listing(
    fields={
        "kind": Field(lambda row: row.kind, TEXT),
        "beneficiary": Field(lambda row: row.beneficiary, TEXT),
        "address": Field(lambda row: row.address, TEXT),
        "earned": Field(lambda row: Decimal(row.amount), _AMOUNT),
    },
    # One row for each kind, beneficiary and address; the largest first. Decimal, as a page token holds no
    # integer beyond 64 bits; the constructor is exact, where arithmetic would round to 28 digits.
    key=[
        lambda row: Decimal(-row.amount),
        lambda row: row.kind,
        lambda row: row.beneficiary,
        lambda row: row.address,
    ],
)
"""Largest first. Sums are made in Python (SQL would overflow), so this list is in memory."""

REWARD_ROOTS = Listing(
    fields={
        "name": Field(RewardRoot.number, numbered(RewardRootName, lambda name: name.reward_root)),
        "state": Field(RewardRoot.state, choices({state.name: state for state in RewardRootState})),
        "number": Field(RewardRoot.number, INTEGER),
        "account_count": Field(RewardRoot.account_count, INTEGER),
        "last_seq": Field(RewardRoot.last_seq, INTEGER),
    },
    key=[RewardRoot.number.desc()],
)
"""Newest first."""


def earned(session: Session) -> list[Earned]:
    """Returns what every beneficiary earned in batches that are on chain."""
    amounts: dict[tuple[str, str, str], int] = defaultdict(int)
    query = (
        select(Earning.kind, Earning.beneficiary, Earning.address, Earning.amount)
        .join(Batch, Batch.seq == Earning.batch_seq)
        .where(Batch.state.in_(_ON_CHAIN))
    )
    for kind, beneficiary, address, amount in session.execute(query):
        amounts[kind, beneficiary, address] += amount
    return [
        Earned(kind=kind, beneficiary=beneficiary, address=address, amount=amount)
        for (kind, beneficiary, address), amount in amounts.items()
    ]


def sums(session: Session) -> Sums:
    """Returns fees, payouts and dust of all batches that are on chain."""
    query = select(Batch.fee_total, Batch.payout_total, Batch.dust).where(Batch.state.in_(_ON_CHAIN))
    rows = session.execute(query).all()
    return Sums(
        fees=sum(row[0] for row in rows),
        payouts=sum(row[1] for row in rows),
        dust=sum(row[2] for row in rows),
    )


def reward_root(session: Session, number: int) -> RewardRoot:
    """One reward root. Raises NotFound."""
    found = session.get(RewardRoot, number)
    if found is None:
        raise NotFound("reward root", f"rewardRoots/{number}")
    return found


def transaction_hashes(session: Session, purposes: Collection[str]) -> dict[str, str]:
    """Returns the hash of the newest transaction that reached each purpose; none for a purpose that none reached."""
    query = (
        select(SignedTransaction.purpose, SignedTransaction.hash)
        .where(SignedTransaction.purpose.in_(purposes), SignedTransaction.outcome == Outcome.SUCCEEDED)
        .order_by(SignedTransaction.id)
    )
    return dict(session.execute(query).tuples().all())
