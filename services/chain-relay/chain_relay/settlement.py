"""What the API does: requests that are safe to repeat, and reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from chain_relay import rewards
from chain_relay.chain import Chain, ChainUnavailable
from chain_relay.records import AccountBalance, BatchRecord, Claim, Info, RewardRootRecord, SettledAnswer
from chain_relay.relay import Relay
from chain_relay.settings import Settings, checked_address
from chain_relay.store import answers, balances, batches
from chain_relay.store.answers import Inclusion
from chain_relay.store.balances import Earned, Sums
from chain_relay.store.tables import Batch, RewardRoot
from identity.names import BatchName, RewardRootName
from servicekit import names
from servicekit.database import reading
from servicekit.database.request_ids import RequestId
from servicekit.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from servicekit.lists import Page, Query

_REWARD_ROOT_BYTES = 1000
"""A bound for a reward root in a response: digests, a state, numbers of at most 78 digits and times."""


class Settlement:
    """Synchronous; called from handler threads."""

    def __init__(
        self,
        *,
        engine: Engine,
        chain: Chain,
        relay: Relay,
        settings: Settings,
        contracts: Mapping[str, str],
        committer: str,
    ) -> None:
        """`contracts`: address by name. `committer`: the address that signs commitments."""
        self._engine = engine
        self._chain = chain
        self._relay = relay
        self._settings = settings
        self._contracts = contracts
        self._committer = committer

    def info(self) -> Info:
        """Returns the chain, its contracts, rates and splits."""
        with reading(self._engine) as session:
            ledger, waiting = batches.ledger(session), batches.waiting_count(session)
        return Info(
            ledger=ledger,
            contracts=self._contracts,
            committer=self._committer,
            rates=self._settings.rates,
            split=self._settings.split,
            waiting_events=waiting,
        )

    def flush(self, request_id: RequestId) -> BatchRecord | None:
        """Seals what waits now. Returns the batch, the same one for a repeated request; None when nothing waited."""
        name = self._relay.seal_now(_once(request_id))
        return self.batch(name) if name else None

    def batch(self, name: str) -> BatchRecord:
        """Returns one batch. Raises InvalidArgument, NotFound."""
        with reading(self._engine) as session:
            found = batches.batch(session, names.parse("name", BatchName, name).seq)
            return BatchRecord(found, batches.history(session, found.seq))

    def batches(self, query: Query) -> Page[BatchRecord]:
        """Returns a page of batches. Raises InvalidArgument."""
        with reading(self._engine) as session:
            page = batches.BATCHES.page(session, select(Batch), query, bytes_of=_batch_bytes)
            histories = batches.histories(session, [row.seq for row in page.items])
        records = [BatchRecord(row, histories[row.seq]) for row in page.items]
        return Page(records, page.next_page_token, page.total_size)

    def inclusion(self, inference: str) -> Inclusion:
        """Returns the proof that an answer is in a batch. Raises NotFound, FailedPrecondition."""
        with reading(self._engine) as session:
            return answers.inclusion(session, inference)

    def settlement(self, inference: str) -> SettledAnswer:
        """Returns the fee of an answer and its parts. Raises NotFound."""
        with reading(self._engine) as session:
            return SettledAnswer(answers.answer(session, inference), answers.journal(session, inference))

    def balances(self, query: Query) -> tuple[Page[AccountBalance], Sums]:
        """Returns a page of balances, and the sums over all of them. Raises InvalidArgument, Unavailable."""
        with reading(self._engine) as session:
            rows, sums = balances.earned(session), balances.sums(session)
            claimable = rewards.amounts_under(session, rewards.newest_accepted(session))
        page = balances.BALANCES.page_of(rows, query, bytes_of=_balance_bytes)
        claimed = self._claimed([row.address for row in page.items if row.address])
        found = [
            AccountBalance(
                earned=row, claimable=claimable.get(row.address, 0), claimed=claimed.get(row.address, 0)
            )
            for row in page.items
        ]
        return Page(found, page.next_page_token, page.total_size), sums

    def propose(self, request_id: RequestId) -> RewardRootRecord:
        """Makes the next reward root; the same one for a repeated request. Raises FailedPrecondition, Unavailable."""
        try:
            name = self._relay.make_reward_root(_once(request_id))
        except ChainUnavailable as error:
            raise _unavailable(error) from error
        return self.reward_root(name)

    def reward_root(self, name: str) -> RewardRootRecord:
        """Returns one reward root. Raises InvalidArgument, NotFound."""
        with reading(self._engine) as session:
            return _record(
                session, balances.reward_root(session, names.parse("name", RewardRootName, name).reward_root)
            )

    def reward_roots(self, query: Query) -> Page[RewardRootRecord]:
        """Returns a page of reward roots. Raises InvalidArgument."""
        with reading(self._engine) as session:
            page = balances.REWARD_ROOTS.page(
                session, select(RewardRoot), query, bytes_of=lambda row: _REWARD_ROOT_BYTES
            )
            records = _records(session, page.items)
        return Page(records, page.next_page_token, page.total_size)

    def claim(self, address: str) -> Claim:
        """Returns what an account needs to claim by the newest accepted root.

        Raises:
            InvalidArgument: the address has a wrong checksum.
            FailedPrecondition: NO_ACCEPTED_ROOT.
            NotFound: the account earned nothing under the root.
            Unavailable: the chain does not answer.
        """
        try:
            account = checked_address(address)
        except ValueError as error:
            raise InvalidArgument("address", "eip55", str(error), address) from None
        with reading(self._engine) as session:
            root = rewards.newest_accepted(session)
            if root is None:
                raise FailedPrecondition(
                    "NO_ACCEPTED_ROOT", "no reward root is accepted on chain yet", subject="rewardRoots"
                )
            found = rewards.reward_proof(
                session, self._chain.chain_id, self._chain.distributor_address, root, account
            )
            record = _record(session, root)
        if found is None:
            raise NotFound("reward of account", account)
        cumulative, proof = found
        return Claim(
            root=record,
            address=account,
            cumulative=cumulative,
            claimed=self._claimed([account])[account],
            proof=proof,
            chain_id=self._chain.chain_id,
            distributor=self._chain.distributor_address,
        )

    def _claimed(self, accounts: Sequence[str]) -> dict[str, int]:
        """Returns what accounts have claimed, from the chain. Raises Unavailable."""
        try:
            latest = self._chain.block("latest")
            if latest is None or not accounts:
                return {}
            return {account: self._chain.claimed(account, latest) for account in set(accounts)}
        except ChainUnavailable as error:
            raise _unavailable(error) from error


def _unavailable(error: ChainUnavailable) -> Unavailable:
    return Unavailable("CHAIN_UNAVAILABLE", f"the chain does not answer: {error}", retry_after_s=1)


def _once(request_id: RequestId) -> Callable[[Session, Callable[[], str]], str]:
    """Returns a guard that makes something in its transaction, or returns what the same request made before."""

    def once(session: Session, make: Callable[[], str]) -> str:
        known = request_id.made(session)
        if known is not None:
            return known
        made = make()
        request_id.remember(session, made)
        return made

    return once


def _record(session: Session, root: RewardRoot) -> RewardRootRecord:
    return _records(session, [root])[0]


def _records(session: Session, roots: Sequence[RewardRoot]) -> list[RewardRootRecord]:
    purposes = [f"{step}/{root.number}" for root in roots for step in ("propose", "accept")]
    hashes = balances.transaction_hashes(session, purposes)
    return [
        RewardRootRecord(
            root=root,
            propose_hash=hashes.get(f"propose/{root.number}", ""),
            accept_hash=hashes.get(f"accept/{root.number}", ""),
        )
        for root in roots
    ]


def _batch_bytes(row: Batch) -> int:
    """Returns a bound for a batch in a response; each reorg adds the states that the batch comes through again."""
    return 1500 + 400 * (row.reorg_count + 1)


def _balance_bytes(row: Earned) -> int:
    """Returns a bound for a balance in a response: its names, and amounts of at most 78 digits."""
    return len(f"{row.kind}{row.beneficiary}{row.address}".encode()) + 500
