"""Reward roots: every account's cumulative earnings, proposed, accepted after a delay, claimed by proof.

A root's number is the distributor's number of its proposal, so that a proposal sent twice is made once. A
root's state is read from the distributor; the database stores only the amounts under it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from chain_relay.chain import Block, Call, Chain, DistributorState
from chain_relay.store.tables import Batch, BatchState, Earning, RewardAccount, RewardRoot, RewardRootState
from identity.evm_merkle import EvmMerkleTree
from identity.leaf import RewardLeaf
from servicekit.database import reading, run_in_transaction, utc_now
from servicekit.errors import FailedPrecondition

_ZERO = bytes(32)


def cumulative_by_address(session: Session, last_seq: int) -> dict[str, int]:
    """What each address earned in batches up to `last_seq`; what is held under a name is left out."""
    query = select(Earning.address, Earning.amount).where(
        Earning.batch_seq <= last_seq, Earning.address != ""
    )
    totals: dict[str, int] = defaultdict(int)
    for address, amount in session.execute(query):
        totals[address] += amount
    return dict(totals)


def last_certain_seq(session: Session, certainty: BatchState) -> int | None:
    """The last batch that is at least so sure; all before it are too, as the ledger takes them in order."""
    states = [state for state in BatchState if state.value >= certainty.value]
    return session.scalar(select(func.max(Batch.seq)).where(Batch.state.in_(states)))


def open_root(session: Session) -> RewardRoot | None:
    """The root that is not yet accepted or vetoed."""
    states = (RewardRootState.PENDING, RewardRootState.PROPOSED)
    return session.scalars(select(RewardRoot).where(RewardRoot.state.in_(states))).first()


def newest_accepted(session: Session) -> RewardRoot | None:
    """The root that accounts claim by."""
    query = select(RewardRoot).where(RewardRoot.state == RewardRootState.ACCEPTED)
    return session.scalars(query.order_by(RewardRoot.number.desc()).limit(1)).first()


def amounts_under(session: Session, root: RewardRoot | None) -> dict[str, int]:
    """Cumulative amounts by address under a root; nothing under none."""
    if root is None:
        return {}
    query = select(RewardAccount).where(RewardAccount.reward_root == root.number)
    return {row.address: row.cumulative for row in session.scalars(query)}


def make_root(
    session: Session, chain_id: int, distributor: str, certainty: BatchState, chain_next: int
) -> RewardRoot:
    """Writes the next reward root, to be proposed.

    Raises FailedPrecondition: REWARD_ROOT_OPEN when one is pending or proposed, NOTHING_TO_REWARD when nothing was earned
    since the last accepted one.
    """
    waiting = open_root(session)
    if waiting is not None:
        raise FailedPrecondition(
            "REWARD_ROOT_OPEN",
            f"reward root {waiting.number} is {waiting.state.name.lower()}: it must be accepted or vetoed first",
            subject=f"rewardRoots/{waiting.number}",
        )
    last_seq = last_certain_seq(session, certainty)
    amounts = cumulative_by_address(session, last_seq) if last_seq is not None else {}
    accepted = newest_accepted(session)
    total = sum(amounts.values())
    if last_seq is None or not total or (accepted is not None and total <= accepted.total):
        raise FailedPrecondition(
            "NOTHING_TO_REWARD",
            f"no account earned anything in a {certainty.name.lower()} batch since the last reward root",
        )
    accounts = sorted(amounts)
    leaves = [RewardLeaf(chain_id, distributor, account, amounts[account]) for account in accounts]
    newest = session.scalar(select(func.max(RewardRoot.number))) or 0
    root = RewardRoot(
        number=max(newest + 1, chain_next),
        root=EvmMerkleTree([leaf.hash() for leaf in leaves]).root,
        state=RewardRootState.PENDING,
        account_count=len(accounts),
        total=total,
        last_seq=last_seq,
        create_time=utc_now(),
        accept_after=None,
    )
    session.add(root)
    session.flush()
    for position, account in enumerate(accounts):
        session.add(
            RewardAccount(
                reward_root=root.number, address=account, position=position, cumulative=amounts[account]
            )
        )
    return root


def reward_proof(
    session: Session, chain_id: int, distributor: str, root: RewardRoot, account: str
) -> tuple[int, list[bytes]] | None:
    """An account's cumulative amount and proof under a root; None when it is not in it."""
    accounts = session.scalars(
        select(RewardAccount).where(RewardAccount.reward_root == root.number).order_by(RewardAccount.position)
    ).all()
    mine = next((row for row in accounts if row.address == account), None)
    if mine is None:
        return None
    leaves = [RewardLeaf(chain_id, distributor, row.address, row.cumulative).hash() for row in accounts]
    return mine.cumulative, EvmMerkleTree(leaves).proof(mine.position)


class Rewards:
    """Follows reward roots on the chain, and yields the calls that bring them further."""

    def __init__(
        self, engine: Engine, chain: Chain, *, may_mint: bool, now: Callable[[], datetime] = utc_now
    ) -> None:
        """`may_mint`: on a development chain, mint to the distributor what it lacks for the open root."""
        self._engine = engine
        self._chain = chain
        self._may_mint = may_mint
        self._now = now

    def next_calls(self, latest: Block) -> Iterator[tuple[str, Call]]:
        """Records the states of the newest roots; yields calls, with purposes, that bring them further."""
        with reading(self._engine) as session:
            query = select(RewardRoot).order_by(RewardRoot.number.desc()).limit(2)
            roots = list(session.scalars(query))[::-1]
        if not roots:
            return
        distributor = self._chain.distributor(latest)
        for root in roots:
            state = _state(root, distributor)
            self._note(root, state, distributor)
            if state is RewardRootState.PENDING and distributor.pending_root == _ZERO:
                yield from self._propose(root, distributor)
            elif state is RewardRootState.PROPOSED and self._now().timestamp() >= distributor.accept_after:
                yield from self._funded(root, distributor)
                yield f"accept/{root.number}", Call("distributor", "accept", ())

    def _propose(self, root: RewardRoot, distributor: DistributorState) -> Iterator[tuple[str, Call]]:
        yield from self._funded(root, distributor)
        yield f"propose/{root.number}", Call("distributor", "propose", (root.number, root.root, root.total))

    def _funded(self, root: RewardRoot, distributor: DistributorState) -> Iterator[tuple[str, Call]]:
        lacking = root.total - distributor.balance - distributor.total_claimed
        if lacking > 0 and self._may_mint:
            yield f"fund/{root.number}", Call("token", "mint", (self._chain.distributor_address, lacking))

    def _note(self, root: RewardRoot, state: RewardRootState, distributor: DistributorState) -> None:
        proposed = state is RewardRootState.PROPOSED
        accept_after = (
            datetime.fromtimestamp(distributor.accept_after, UTC) if proposed else root.accept_after
        )
        if (root.state, root.accept_after) == (state, accept_after):
            return

        def write(session: Session) -> None:
            row = session.get_one(RewardRoot, root.number)
            row.state, row.accept_after = state, accept_after

        run_in_transaction(self._engine, write)


def _state(root: RewardRoot, distributor: DistributorState) -> RewardRootState:
    """Where a root stands, from the distributor alone; a reorg moves it back like anything else."""
    if distributor.accepted_number == root.number:
        return RewardRootState.ACCEPTED
    if distributor.accepted_number > root.number and root.state is RewardRootState.ACCEPTED:
        return RewardRootState.ACCEPTED
    if distributor.next_number <= root.number:
        return RewardRootState.PENDING
    if distributor.next_number == root.number + 1 and distributor.pending_root == root.root:
        return RewardRootState.PROPOSED
    return RewardRootState.VETOED
