"""Money: fees in = payouts + dust, from each answer over each batch to the reward roots."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

from identity.evm_merkle import EvmMerkleTree
from identity.leaf import RewardLeaf
from openledger_cli.reconcile.book import Book
from openledger_cli.reconcile.onchain import OnChain
from openledger_cli.reconcile.rows import Rows

FEE, BATCH, REWARD, CLAIMS = "fee of an answer", "money of a batch", "reward root", "claims"


def check(book: Book, rows: Rows, chain: OnChain | None) -> None:
    """Judges every amount. Amounts are summed here: they outgrow what SQL adds up exactly."""
    parts: Counter[str] = Counter()
    for row in rows.all("SELECT inference, amount FROM journal"):
        parts[row.inference] += int(row.amount)
    answers = rows.all("SELECT inference, fee, dust, batch_seq FROM scored_answer")
    book.saw(FEE, len(answers))
    fees: Counter[int] = Counter()
    dust: Counter[int] = Counter()
    for row in answers:
        book.same(FEE, row.inference, parts[row.inference] + int(row.dust), int(row.fee), "payouts and dust")
        if row.batch_seq is not None:
            fees[row.batch_seq] += int(row.fee)
            dust[row.batch_seq] += int(row.dust)
    for row in rows.all("SELECT seq, fee_total, payout_total, dust FROM batch"):
        name = f"batches/{row.seq}"
        book.saw(BATCH, 1)
        book.same(BATCH, name, int(row.fee_total), fees[row.seq], "fees")
        book.same(BATCH, name, int(row.dust), dust[row.seq], "dust")
        book.same(BATCH, name, int(row.payout_total) + int(row.dust), int(row.fee_total), "payouts and dust")
    _check_earned(book, rows)
    _check_rewards(book, rows, chain)


def _check_earned(book: Book, rows: Rows) -> None:
    """What a batch earned its beneficiaries is the sum of its answers' parts; by whom, not where: addresses may come later."""
    earned: Counter[tuple[int, str, str]] = Counter()
    for row in rows.all("SELECT batch_seq, kind, beneficiary, amount FROM earning"):
        earned[row.batch_seq, row.kind, row.beneficiary] += int(row.amount)
    parts: Counter[tuple[int, str, str]] = Counter()
    for row in rows.all(
        "SELECT a.batch_seq, j.kind, j.beneficiary, j.amount FROM journal j"
        " JOIN scored_answer a ON a.inference = j.inference WHERE a.batch_seq IS NOT NULL"
    ):
        parts[row.batch_seq, row.kind, row.beneficiary] += int(row.amount)
    for key in earned.keys() | parts.keys():
        seq, kind, beneficiary = key
        book.same(BATCH, f"batches/{seq}", earned[key], parts[key], f"earned by {kind} {beneficiary}")


def _check_rewards(book: Book, rows: Rows, chain: OnChain | None) -> None:
    """A root's accounts add up to its total, hash to its root, and got no more than they earned."""
    accounts: Mapping[int, list[tuple[str, int]]] = defaultdict(list)
    for row in rows.all("SELECT reward_root, address, cumulative FROM reward_account ORDER BY position"):
        accounts[row.reward_root].append((row.address, int(row.cumulative)))
    earnings = rows.all("SELECT batch_seq, address, amount FROM earning WHERE address <> ''")
    roots = rows.all(
        "SELECT number, root, state, account_count, total, last_seq FROM reward_root ORDER BY number"
    )
    book.saw(REWARD, len(roots))
    for root in roots:
        name, under = f"rewardRoots/{root.number}", accounts[root.number]
        book.same(REWARD, name, len(under), root.account_count, "accounts")
        book.same(REWARD, name, sum(amount for _, amount in under), int(root.total), "cumulative amounts")
        earned: Counter[str] = Counter()
        for row in earnings:
            if row.batch_seq <= root.last_seq:
                earned[row.address] += int(row.amount)
        for address, amount in under:
            if amount > earned[address]:
                book.doubled(REWARD, name, f"{address} has {amount}, earned {earned[address]}")
        if chain is not None and under and _root(chain, under) != bytes(root.root):
            book.lost(REWARD, name, "its accounts have another root")
    if chain is None:
        return
    number, found = chain.accepted()
    newest = max((root.number for root in roots if root.state == "ACCEPTED"), default=0)
    by_number = {root.number: bytes(root.root) for root in roots}
    if number and by_number.get(number) != found:
        book.lost(REWARD, f"rewardRoots/{number}", f"the distributor accepted root 0x{found.hex()}")
    if newest > number:
        book.lost(REWARD, f"rewardRoots/{newest}", f"accepted here, but the distributor is at {number}")
    for root in roots:
        if root.state in ("PENDING", "PROPOSED"):
            book.waiting(REWARD, f"rewardRoots/{root.number}", f"is {root.state.lower()}")
    claimed, most = chain.claims()
    book.saw(CLAIMS, 1)
    if claimed > most:
        book.doubled(CLAIMS, "distributor", f"{claimed} were claimed of {most}")


def _root(chain: OnChain, under: list[tuple[str, int]]) -> bytes:
    distributor = chain.addresses["distributor"]
    return EvmMerkleTree(
        [RewardLeaf(chain.chain_id, distributor, account, amount).hash() for account, amount in under]
    ).root
