"""A chain in memory that keeps the promises of `chain_relay.chain.Chain` and runs the contracts' rules.

Blocks hold whole copies of the state, so that a read at a block, a reorg and a safe block are what they are on a
real chain. Transactions are real signed bytes; a call's data is its own text.
"""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from eth_account import Account
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from eth_utils.crypto import keccak
from hexbytes import HexBytes

from chain_relay.chain import (
    Block,
    Call,
    CallReverts,
    ChainUnavailable,
    Commitment,
    DistributorState,
    FeeQuote,
    LedgerState,
    ModelOnChain,
    Receipt,
    SendRefused,
    Tag,
)

ZERO = bytes(32)
_GAS = {"commit": 57_858}


@dataclass
class _State:
    """What the contracts hold after a block."""

    next_seq: int = 0
    next_event: int = 0
    roots: dict[int, bytes] = field(default_factory=dict)
    datasets: dict[bytes, bytes] = field(default_factory=dict)
    models: dict[bytes, ModelOnChain] = field(default_factory=dict)
    distributor: DistributorState = field(
        default_factory=lambda: DistributorState(
            next_number=1,
            accepted_number=0,
            accepted_root=ZERO,
            pending_root=ZERO,
            accept_after=0,
            total_claimed=0,
            balance=0,
        )
    )
    nonces: dict[str, int] = field(default_factory=dict)
    receipts: dict[str, Receipt] = field(default_factory=dict)
    commitments: dict[int, Commitment] = field(default_factory=dict)


@dataclass(frozen=True)
class _Pending:
    hash: str
    sender: str
    nonce: int
    max_fee: int
    call: Call


class FakeChain:
    """Mines only on request. The safe block is one behind the latest, the finalized one two."""

    chain_id = 31337
    ledger_address = "0x" + "11" * 20
    distributor_address = "0x" + "22" * 20

    def __init__(self) -> None:
        self.base_fee = 10**9
        self.unreachable = False
        self.sent: list[bytes] = []
        """All bytes that came, repeats included."""
        self._hashes = count()
        self._pool: dict[tuple[str, int], _Pending] = {}
        self._blocks: list[tuple[Block, _State]] = []
        self.mine()

    def mine(self, blocks: int = 1) -> None:
        """Mines blocks, the first of them with what waits and can pay."""
        for _ in range(blocks):
            number = len(self._blocks)
            state = deepcopy(self._blocks[-1][1]) if self._blocks else _State()
            block = Block(number, "0x" + keccak(text=f"block {next(self._hashes)}").hex(), 1_000 + number)
            for key in sorted(self._pool):
                pending = self._pool[key]
                if pending.nonce == state.nonces.get(pending.sender, 0) and pending.max_fee >= self.base_fee:
                    self._include(state, block, pending)
                    del self._pool[key]
            self._blocks.append((block, state))

    def reorg(self, depth: int, keep: bytes | None = None) -> None:
        """Replaces the newest blocks; their transactions are forgotten but for the bytes to keep."""
        del self._blocks[-depth:]
        self._pool.clear()
        if keep is not None:
            self.send(keep)
        self.mine(depth)

    def forget(self, transaction_hash: str) -> None:
        """Drops a transaction that waits."""
        self._pool = {key: each for key, each in self._pool.items() if each.hash != transaction_hash}

    def committed(self) -> list[int]:
        """Sequence numbers that are committed."""
        return sorted(self._blocks[-1][1].commitments)

    def block(self, at: Tag | int) -> Block | None:
        self._answer()
        behind = {"latest": 0, "safe": 1, "finalized": 2}
        number = at if isinstance(at, int) else max(0, len(self._blocks) - 1 - behind[at])
        return self._blocks[number][0] if number < len(self._blocks) else None

    def ledger(self, at: Block) -> LedgerState:
        state = self._at(at)
        return LedgerState(state.next_seq, state.next_event)

    def root(self, seq: int, at: Block) -> bytes:
        return self._at(at).roots.get(seq, ZERO)

    def commitment(self, seq: int, at: Block) -> Commitment | None:
        return self._at(at).commitments.get(seq)

    def dataset_root(self, name_hash: bytes, at: Block) -> bytes:
        return self._at(at).datasets.get(name_hash, ZERO)

    def model(self, version_digest: bytes, at: Block) -> ModelOnChain:
        return self._at(at).models.get(version_digest, ModelOnChain(ZERO, 0))

    def distributor(self, at: Block) -> DistributorState:
        return self._at(at).distributor

    def claimed(self, account: str, at: Block) -> int:
        self._answer()
        return 0

    def nonce(self, account: str, at: Block) -> int:
        return self._at(at).nonces.get(account, 0)

    def balance(self, account: str) -> int:
        self._answer()
        return 10**18

    def fee_quote(self) -> FeeQuote:
        self._answer()
        return FeeQuote(self.base_fee, 10**8)

    def encode(self, call: Call) -> tuple[str, bytes]:
        arguments = [["bytes", a.hex()] if isinstance(a, bytes) else ["plain", a] for a in call.args]
        return "0x" + "33" * 20, json.dumps([call.contract, call.function, arguments]).encode()

    def estimate(self, call: Call, sender: str) -> int:
        self._answer()
        block, state = self._blocks[-1]
        reason = _execute(deepcopy(state), call, block)
        if reason:
            raise CallReverts(str(call), reason)
        return _GAS.get(call.function, 50_000)

    def send(self, raw: bytes) -> None:
        self._answer()
        self.sent.append(raw)
        fields: dict[str, Any] = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
        sender = str(Account.recover_transaction(raw))
        hash_ = "0x" + keccak(raw).hex()
        nonce, max_fee = int(fields["nonce"]), int(fields["maxFeePerGas"])
        if nonce < self._blocks[-1][1].nonces.get(sender, 0):
            raise SendRefused("NONCE_TOO_LOW", "nonce too low")
        old = self._pool.get((sender, nonce))
        if old is not None and old.hash == hash_:
            return
        if old is not None and max_fee * 10 < old.max_fee * 11:
            raise SendRefused("UNDERPRICED", "replacement transaction underpriced")
        if max_fee < self.base_fee:
            raise SendRefused("UNDERPRICED", "max fee per gas less than block base fee")
        contract, function, arguments = json.loads(bytes(fields["data"]))
        args = tuple(bytes.fromhex(value) if kind == "bytes" else value for kind, value in arguments)
        self._pool[sender, nonce] = _Pending(hash_, sender, nonce, max_fee, Call(contract, function, args))

    def receipt(self, transaction_hash: str) -> Receipt | None:
        self._answer()
        return self._blocks[-1][1].receipts.get(transaction_hash)

    def baseline_gas(self, sender: str) -> int:
        self._answer()
        return 28_861

    def _answer(self) -> None:
        if self.unreachable:
            raise ChainUnavailable("the node does not answer")

    def _at(self, at: Block) -> _State:
        self._answer()
        return self._blocks[at.number][1]

    def _include(self, state: _State, block: Block, pending: _Pending) -> None:
        reason = _execute(state, pending.call, block)
        gas = _GAS.get(pending.call.function, 50_000)
        receipt = Receipt(
            transaction_hash=pending.hash,
            succeeded=not reason,
            block=block,
            gas_used=gas,
            gas_price=self.base_fee,
        )
        state.receipts[pending.hash] = receipt
        state.nonces[pending.sender] = pending.nonce + 1
        if pending.call.function == "commit" and not reason:
            seq, root = pending.call.args[0], pending.call.args[3]
            assert isinstance(seq, int)
            assert isinstance(root, bytes)
            state.commitments[seq] = Commitment(
                root=root, transaction_hash=pending.hash, block=block, gas_used=gas, gas_price=self.base_fee
            )


def _execute(state: _State, call: Call, block: Block) -> str:
    """Changes the state as the contract would, or says why it reverts."""
    args: tuple[Any, ...] = call.args
    distributor = state.distributor
    match call.function:
        case "commit":
            if args[0] != state.next_seq:
                return "NotTheNextBatch"
            if args[1] != state.next_event:
                return "NotTheNextEvent"
            state.next_seq, state.next_event = args[0] + 1, args[1] + args[2]
            state.roots[args[0]] = args[3]
        case "registerDataset":
            if args[0] in state.datasets:
                return "DatasetAlreadyRegistered"
            state.datasets[args[0]] = args[1]
        case "recordModel":
            state.models[args[0]] = ModelOnChain(args[3], args[4])
        case "mint":
            state.distributor = replace(distributor, balance=distributor.balance + args[1])
        case "propose":
            if args[0] != distributor.next_number:
                return "NotTheNextProposal"
            state.distributor = replace(
                distributor, next_number=args[0] + 1, pending_root=args[1], accept_after=block.timestamp + 1
            )
        case "accept":
            if distributor.pending_root == ZERO:
                return "NoProposal"
            state.distributor = replace(
                distributor,
                accepted_number=distributor.next_number - 1,
                accepted_root=distributor.pending_root,
                pending_root=ZERO,
            )
        case other:
            return f"unknown function {other}"
    return ""
