"""What the API can do, with plain arguments: requests that are idempotent, reads that answer in messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from openledger.settlement.v1 import settlement_pb2
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from chain_relay import batch_states, rewards, store
from chain_relay.chain import Chain, ChainUnavailable
from chain_relay.messages import batch_message, hex_text, reward_root_message
from chain_relay.relay import Relay
from chain_relay.settings import Settings, checked_address
from chain_relay.tables import RewardRoot
from identity.names import BatchName, RewardRootName
from servicekit.database import reading
from servicekit.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from servicekit.request_ids import RequestId


class Settlement:
    """Synchronous; called from handler threads."""

    def __init__(
        self,
        engine: Engine,
        chain: Chain,
        relay: Relay,
        settings: Settings,
        contracts: dict[str, str],
        signer: str,
    ) -> None:
        self._engine = engine
        self._chain = chain
        self._relay = relay
        self._settings = settings
        self._contracts = contracts
        self._signer = signer

    def info(self) -> settlement_pb2.SettlementInfo:
        """The chain, its contracts, rates and splits."""
        split = self._settings.split
        with reading(self._engine) as session:
            ledger, waiting = store.ledger(session), store.waiting_count(session)
        return settlement_pb2.SettlementInfo(
            chain_id=ledger.chain_id,
            ledger_address=ledger.address,
            distributor_address=self._contracts["distributor"],
            token_address=self._contracts["token"],
            registry_address=self._contracts["registry"],
            committer_address=self._signer,
            rate_in=str(self._settings.rate_in),
            rate_out=str(self._settings.rate_out),
            platform_fee=str(self._settings.platform_fee),
            split_bps={
                "platform": split.platform,
                "model_owner": split.model_owner,
                "stakers": split.stakers,
                "contributors": split.contributors,
            },
            waiting_event_count=waiting,
            baseline_gas_per_event=ledger.baseline_gas,
        )

    def flush(self, asked: RequestId) -> settlement_pb2.FlushBatchResponse:
        """Seals what waits now; the same batch again for the same request."""
        made = self._relay.seal_now(_once(asked))
        if not made:
            return settlement_pb2.FlushBatchResponse()
        return settlement_pb2.FlushBatchResponse(batch=self.batch(made))

    def batch(self, name: str) -> settlement_pb2.Batch:
        """One batch. Raises NotFound."""
        with reading(self._engine) as session:
            found = store.batch(session, BatchName.parse(name).seq)
            return batch_message(found, batch_states.history_of(session, found.seq))

    def batches(self, below: int | None, limit: int) -> list[settlement_pb2.Batch]:
        """Batches, newest first."""
        with reading(self._engine) as session:
            rows = store.batches(session, below, limit)
            return [batch_message(row, batch_states.history_of(session, row.seq)) for row in rows]

    def inclusion(self, inference: str) -> settlement_pb2.InclusionProof:
        """The proof that an answer is in a batch. Raises NotFound, FailedPrecondition."""
        with reading(self._engine) as session:
            found = store.inclusion(session, inference)
            batch = batch_message(found.batch, batch_states.history_of(session, found.batch.seq))
        leaf = found.leaf
        return settlement_pb2.InclusionProof(
            batch=batch,
            index=found.index,
            leaf=settlement_pb2.InclusionProof.Leaf(
                chain_id=leaf.chain_id,
                ledger_address=leaf.ledger,
                seq=leaf.batch_seq,
                event_index=leaf.event_index,
                inference=leaf.inference,
                model_digest=leaf.model_version_digest,
                report_digest=leaf.report_digest,
                record_digest=leaf.record_digest,
                fee=str(leaf.fee_paid),
            ),
            leaf_hash=hex_text(leaf.hash()),
            proof=[hex_text(sibling) for sibling in found.proof],
        )

    def settlement(self, inference: str) -> settlement_pb2.Settlement:
        """The money of one answer. Raises NotFound."""
        with reading(self._engine) as session:
            row, entries = store.answer(session, inference), store.journal(session, inference)
        return settlement_pb2.Settlement(
            inference=inference,
            fee=str(row.fee),
            dust=str(row.dust),
            batch="" if row.batch_seq is None else str(BatchName(row.batch_seq)),
            payouts=[
                settlement_pb2.Settlement.Payout(
                    kind=entry.kind,
                    beneficiary=entry.beneficiary,
                    address=entry.address,
                    amount=str(entry.amount),
                )
                for entry in entries
            ],
        )

    def balances(self, skip: int, limit: int) -> tuple[settlement_pb2.ListBalancesResponse, bool]:
        """Balances, largest first, and whether there are more.

        `claimable` and `claimed` are of the address: where two beneficiaries share one, both rows show its sums.
        """
        with reading(self._engine) as session:
            rows, sums = store.earned(session), store.totals(session)
            accepted = rewards.newest_accepted(session)
            claimable = rewards.amounts_under(session, accepted)
        page = rows[skip : skip + limit]
        claimed = self._claimed([row.address for row in page if row.address])
        response = settlement_pb2.ListBalancesResponse(
            fee_total=str(sums[0]), payout_total=str(sums[1]), dust=str(sums[2])
        )
        for row in page:
            response.balances.add(
                kind=row.kind,
                beneficiary=row.beneficiary,
                address=row.address,
                earned=str(row.amount),
                claimable=str(claimable.get(row.address, 0)),
                claimed=str(claimed.get(row.address, 0)),
            )
        return response, skip + limit < len(rows)

    def propose(self, asked: RequestId) -> settlement_pb2.RewardRoot:
        """Makes the next reward root; the same one again for the same request. Raises FailedPrecondition."""
        try:
            made = self._relay.make_reward_root(_once(asked))
        except ChainUnavailable as error:
            raise Unavailable(
                "CHAIN_UNAVAILABLE", f"the chain does not answer: {error}", retry_after_s=1
            ) from error
        return self.reward_root(made)

    def reward_root(self, name: str) -> settlement_pb2.RewardRoot:
        """One reward root. Raises NotFound."""
        with reading(self._engine) as session:
            return _root_message(session, store.reward_root(session, RewardRootName.parse(name).reward_root))

    def reward_roots(self, below: int | None, limit: int) -> list[settlement_pb2.RewardRoot]:
        """Reward roots, newest first."""
        with reading(self._engine) as session:
            return [_root_message(session, row) for row in store.reward_roots(session, below, limit)]

    def reward_proof(self, address: str) -> settlement_pb2.RewardProof:
        """How an account claims by the newest accepted root.

        Raises InvalidArgument for a wrong checksum, FailedPrecondition NO_ACCEPTED_ROOT, NotFound when the account
        earned nothing under it.
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
            message = _root_message(session, root)
        if found is None:
            raise NotFound("reward of account", account)
        cumulative, proof = found
        return settlement_pb2.RewardProof(
            reward_root=message,
            address=account,
            cumulative=str(cumulative),
            claimed=str(self._claimed([account])[account]),
            proof=[hex_text(sibling) for sibling in proof],
            chain_id=self._chain.chain_id,
            distributor_address=self._chain.distributor_address,
        )

    def _claimed(self, accounts: Sequence[str]) -> dict[str, int]:
        """What accounts have claimed, from the chain."""
        try:
            latest = self._chain.block("latest")
            if latest is None or not accounts:
                return {}
            return {account: self._chain.claimed(account, latest) for account in set(accounts)}
        except ChainUnavailable as error:
            raise Unavailable(
                "CHAIN_UNAVAILABLE", f"the chain does not answer: {error}", retry_after_s=1
            ) from error


def _once(asked: RequestId) -> Callable[[Session, Callable[[], str]], str]:
    """Runs a making within its transaction, unless the request made something before; returns what it made."""

    def once(session: Session, make: Callable[[], str]) -> str:
        known = asked.made(session)
        if known is not None:
            return known
        made = make()
        asked.remember(session, made)
        return made

    return once


def _root_message(session: Session, root: RewardRoot) -> settlement_pb2.RewardRoot:
    return reward_root_message(
        root,
        store.transaction_hash(session, f"propose/{root.number}"),
        store.transaction_hash(session, f"accept/{root.number}"),
    )
