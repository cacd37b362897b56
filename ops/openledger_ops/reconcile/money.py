"""Money: fees in = payouts + dust, from each answer over each batch to the reward roots."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from openledger.audit.v1.audit_pb2 import Batch, Earning, RewardAccount, RewardRoot, SettledAnswer
from openledger.settlement.v1 import settlement_pb2

from identity.evm_merkle import EvmMerkleTree
from identity.leaf import RewardLeaf
from openledger_ops.reconcile.book import Book
from openledger_ops.reconcile.contracts import Contracts
from openledger_ops.reconcile.facts import Facts

FEE, BATCH, REWARD, CLAIMS = "fee of an answer", "totals of a batch", "reward root", "claims"
_UNDECIDED = (settlement_pb2.REWARD_ROOT_STATE_PENDING, settlement_pb2.REWARD_ROOT_STATE_PROPOSED)


def check(book: Book, relay: Facts, contracts: Contracts | None) -> None:
    """Checks every amount."""
    answers, batches = relay.of(SettledAnswer), relay.of(Batch)
    _check_fees(book, answers)
    _check_totals(book, answers, batches)
    _check_earned(book, answers, relay.of(Earning))
    _check_rewards(book, relay, contracts)


def _check_fees(book: Book, answers: Sequence[SettledAnswer]) -> None:
    book.saw(FEE, len(answers))
    for answer in answers:
        paid = sum(int(part.amount) for part in answer.parts) + int(answer.dust)
        book.same(FEE, answer.inference, paid, int(answer.fee), "payouts and dust")


def _check_totals(book: Book, answers: Sequence[SettledAnswer], batches: Sequence[Batch]) -> None:
    fees: Counter[int] = Counter()
    dust: Counter[int] = Counter()
    for answer in answers:
        if answer.HasField("batch_seq"):
            fees[answer.batch_seq] += int(answer.fee)
            dust[answer.batch_seq] += int(answer.dust)
    book.saw(BATCH, len(batches))
    for batch in batches:
        name = f"batches/{batch.seq}"
        book.same(BATCH, name, int(batch.fee_total), fees[batch.seq], "fees")
        book.same(BATCH, name, int(batch.dust), dust[batch.seq], "dust")
        paid = int(batch.payout_total) + int(batch.dust)
        book.same(BATCH, name, paid, int(batch.fee_total), "payouts and dust")


def _check_earned(book: Book, answers: Sequence[SettledAnswer], earnings: Sequence[Earning]) -> None:
    """What a beneficiary earned by a batch is the sum of its parts. Addresses are left out: they may come later."""
    earned: Counter[tuple[int, str, str]] = Counter()
    for earning in earnings:
        earned[earning.batch_seq, earning.kind, earning.beneficiary] += int(earning.amount)
    parts: Counter[tuple[int, str, str]] = Counter()
    for answer in answers:
        if answer.HasField("batch_seq"):
            for part in answer.parts:
                parts[answer.batch_seq, part.kind, part.beneficiary] += int(part.amount)
    for key in earned.keys() | parts.keys():
        seq, kind, beneficiary = key
        book.same(BATCH, f"batches/{seq}", earned[key], parts[key], f"earned by {kind} {beneficiary}")


def _check_rewards(book: Book, relay: Facts, contracts: Contracts | None) -> None:
    """A root's accounts add up to its total, hash to its root, and have no more than they earned."""
    accounts: Mapping[int, list[tuple[str, int]]] = defaultdict(list)
    for account in relay.of(RewardAccount):
        accounts[account.reward_root].append((account.address, int(account.cumulative)))
    earnings = sorted(
        (earning.batch_seq, earning.address, int(earning.amount))
        for earning in relay.of(Earning)
        if earning.address
    )
    roots = relay.of(RewardRoot)
    book.saw(REWARD, len(roots))
    for root in roots:
        name, of_root = f"rewardRoots/{root.number}", accounts[root.number]
        book.same(REWARD, name, len(of_root), root.account_count, "accounts")
        book.same(REWARD, name, sum(amount for _, amount in of_root), int(root.total), "cumulative amounts")
        earned: Counter[str] = Counter()
        for seq, address, amount in earnings:
            if seq <= root.last_seq:
                earned[address] += amount
        for address, amount in of_root:
            if amount > earned[address]:
                book.doubled(REWARD, name, f"{address} has {amount}, earned {earned[address]}")
        if contracts is not None and of_root and _root(contracts, of_root) != root.root:
            book.lost(REWARD, name, "its accounts have another root")
        if root.state in _UNDECIDED and contracts is not None:
            state = settlement_pb2.RewardRootState.Name(root.state).removeprefix("REWARD_ROOT_STATE_").lower()
            book.waiting(REWARD, name, f"is {state}")
    if contracts is not None:
        _check_accepted(book, roots, contracts)


def _check_accepted(book: Book, roots: Sequence[RewardRoot], contracts: Contracts) -> None:
    number, found = contracts.accepted()
    accepted = settlement_pb2.REWARD_ROOT_STATE_ACCEPTED
    newest = max((root.number for root in roots if root.state == accepted), default=0)
    by_number = {root.number: root.root for root in roots}
    if number and by_number.get(number) != found:
        book.lost(REWARD, f"rewardRoots/{number}", f"the distributor accepted root 0x{found.hex()}")
    if newest > number:
        book.lost(
            REWARD, f"rewardRoots/{newest}", f"accepted in the database, but the distributor is at {number}"
        )
    claimed, most = contracts.claims()
    book.saw(CLAIMS, 1)
    if claimed > most:
        book.doubled(CLAIMS, "distributor", f"{claimed} were claimed of {most}")


def _root(contracts: Contracts, accounts: list[tuple[str, int]]) -> bytes:
    chain_id, distributor = contracts.addresses.chain_id, contracts.addresses.distributor
    return EvmMerkleTree(
        [RewardLeaf(chain_id, distributor, account, amount).hash() for account, amount in accounts]
    ).root
