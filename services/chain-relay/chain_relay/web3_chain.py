"""The chain as a node reports it by JSON-RPC."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import requests
from hexbytes import HexBytes
from web3 import Web3
from web3.contract.contract import Contract
from web3.exceptions import (
    BadFunctionCallOutput,
    BlockNotFound,
    ContractLogicError,
    TransactionNotFound,
    Web3Exception,
    Web3RPCError,
)

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
from chain_relay.contracts import CONTRACT_OF, Deployment, load_artifact
from chain_relay.rpc import BoundedProvider
from servicekit import crash

crash.primitive(__name__)
T = TypeVar("T")
_ZERO = bytes(32)
# The stand-in for a contract that was never deployed: any address without code.
_BASELINE_ADDRESS = Web3.to_checksum_address("0x" + "0b" * 20)
_KNOWN = ("already known", "already imported", "known transaction")
_REFUSALS = (
    ("NONCE_TOO_LOW", ("nonce too low", "old nonce")),
    ("UNDERPRICED", ("underpriced", "less than block base fee", "fee too low")),
    ("NO_FUNDS", ("insufficient funds",)),
)


def connect(rpc_url: str, timeout_s: float = 10.0) -> Web3:
    """Returns a connection to a node whose calls each end within `timeout_s`."""
    return Web3(BoundedProvider(rpc_url, timeout_s))


class Web3Chain:
    """`Chain` over a node. One object serves all threads."""

    def __init__(self, w3: Web3, deployment: Deployment, artifacts: Path) -> None:
        self._w3 = w3
        self._first_block = deployment.first_block
        self._contracts: dict[str, Contract] = {
            name: w3.eth.contract(
                address=Web3.to_checksum_address(getattr(deployment, name)),
                abi=load_artifact(artifacts, contract).abi,
            )
            for name, contract in CONTRACT_OF.items()
        }
        self._baseline = load_artifact(artifacts, "PerEventBaseline")
        self._chain_id = deployment.chain_id

    @property
    def chain_id(self) -> int:
        """The chain's id, as the deployment has it."""
        return self._chain_id

    @property
    def ledger_address(self) -> str:
        """The AttributionLedger's address."""
        return str(self._contracts["ledger"].address)

    @property
    def distributor_address(self) -> str:
        """The RewardDistributor's address."""
        return str(self._contracts["distributor"].address)

    def block(self, at: Tag | int) -> Block | None:
        """The block of a tag or number; None when there is none yet."""
        try:
            found = _asked(lambda: self._w3.eth.get_block(at))
        except BlockNotFound:
            return None
        return Block(int(found["number"]), _hex(found["hash"]), int(found["timestamp"]))

    def ledger(self, at: Block) -> LedgerState:
        """The ledger's counters; zeros in blocks before it was deployed."""
        seq = self._read("ledger", "nextSeq", (), at)
        event = self._read("ledger", "nextEvent", (), at)
        return LedgerState(int(seq or 0), int(event or 0))

    def root(self, seq: int, at: Block) -> bytes:
        """A batch's root; 32 zero bytes when it is not committed."""
        return bytes(self._read("ledger", "roots", (seq,), at) or _ZERO)

    def commitment(self, seq: int, at: Block) -> Commitment | None:
        """Where a batch was committed, up to a block."""
        event = self._contracts["ledger"].events.Committed()
        logs = _asked(
            lambda: event.get_logs(
                argument_filters={"seq": seq}, from_block=self._first_block, to_block=at.number
            )
        )
        if not logs:
            return None
        log = logs[-1]
        receipt = self.receipt(_hex(log["transactionHash"]))
        if receipt is None or receipt.block.hash != _hex(log["blockHash"]):
            return None  # reorganised away between the two questions
        return Commitment(
            root=bytes(log["args"]["root"]),
            transaction_hash=receipt.transaction_hash,
            block=receipt.block,
            gas_used=receipt.gas_used,
            gas_price=receipt.gas_price,
        )

    def dataset_root(self, name_hash: bytes, at: Block) -> bytes:
        """A registered snapshot's root; 32 zero bytes when it is unknown."""
        found = self._read("registry", "datasets", (name_hash,), at)
        return bytes(found[0]) if found else _ZERO

    def model(self, version_digest: bytes, at: Block) -> ModelOnChain:
        """A registered model version."""
        found = self._read("registry", "models", (version_digest,), at)
        return ModelOnChain(bytes(found[2]), int(found[3])) if found else ModelOnChain(_ZERO, 0)

    def distributor(self, at: Block) -> DistributorState:
        """The distributor's state."""

        def read(function: str) -> Any:
            return self._read("distributor", function, (), at)

        pending = read("pending") or (_ZERO, 0, 0)
        balance = self._read("token", "balanceOf", (self.distributor_address,), at)
        return DistributorState(
            next_number=int(read("nextNumber") or 1),
            accepted_number=int(read("acceptedNumber") or 0),
            accepted_root=bytes(read("acceptedRoot") or _ZERO),
            pending_root=bytes(pending[0]),
            accept_after=int(pending[2]),
            total_claimed=int(read("totalClaimed") or 0),
            balance=int(balance or 0),
        )

    def claimed(self, account: str, at: Block) -> int:
        """What an account has claimed, base units."""
        return int(self._read("distributor", "claimed", (Web3.to_checksum_address(account),), at) or 0)

    def nonce(self, account: str, at: Block) -> int:
        """Transactions of an account that are in the chain up to a block."""
        address = Web3.to_checksum_address(account)
        return int(_asked(lambda: self._w3.eth.get_transaction_count(address, at.number)))

    def balance(self, account: str) -> int:
        """What an account can pay gas with, wei."""
        return int(_asked(lambda: self._w3.eth.get_balance(Web3.to_checksum_address(account))))

    def fee_quote(self) -> FeeQuote:
        """Prices of the next block."""
        latest = _asked(lambda: self._w3.eth.get_block("latest"))
        return FeeQuote(
            int(latest.get("baseFeePerGas", 0)), int(_asked(lambda: self._w3.eth.max_priority_fee))
        )

    def encode(self, call: Call) -> tuple[str, bytes]:
        """The address and the data of a call."""
        contract = self._contracts[call.contract]
        return str(contract.address), bytes(
            HexBytes(contract.encode_abi(call.function, args=list(call.args)))
        )

    def estimate(self, call: Call, sender: str) -> int:
        """The gas a call would use now. Raises CallReverts."""
        contract = self._contracts[call.contract]
        _, data = self.encode(call)
        try:
            return int(
                _asked(
                    lambda: self._w3.eth.estimate_gas(
                        {
                            "from": Web3.to_checksum_address(sender),
                            "to": contract.address,
                            "data": HexBytes(data),
                        }
                    )
                )
            )
        except ContractLogicError as error:
            raise CallReverts(str(call), _revert_reason(contract, error)) from None

    def send(self, raw: bytes) -> None:
        """Hands signed bytes to the node; bytes it already has are no error. Raises SendRefused."""
        try:
            with crash.step("send transaction"):
                self._w3.eth.send_raw_transaction(HexBytes(raw))
        except Web3RPCError as error:
            text = str(error).lower()
            if any(words in text for words in _KNOWN):
                return
            for reason, phrases in _REFUSALS:
                if any(phrase in text for phrase in phrases):
                    raise SendRefused(reason, str(error)) from None  # type: ignore[arg-type]
            raise SendRefused("OTHER", str(error)) from None
        except (requests.RequestException, Web3Exception) as error:
            raise ChainUnavailable(f"sending: {_words(error)}") from error

    def receipt(self, transaction_hash: str) -> Receipt | None:
        """What became of a transaction; None while it is in no block."""
        try:
            found = _asked(lambda: self._w3.eth.get_transaction_receipt(HexBytes(transaction_hash)))
        except TransactionNotFound:
            return None
        block = self.block(int(found["blockNumber"]))
        if block is None or block.hash != _hex(found["blockHash"]):
            return None
        return Receipt(
            transaction_hash=transaction_hash,
            succeeded=bool(found["status"]),
            block=block,
            gas_used=int(found["gasUsed"]),
            gas_price=int(found["effectiveGasPrice"]),
        )

    def baseline_gas(self, sender: str) -> int:
        """Gas of recording one event in a transaction of its own, by estimate over code that is not deployed."""
        account = Web3.to_checksum_address(sender)
        contract = self._w3.eth.contract(address=_BASELINE_ADDRESS, abi=self._baseline.abi)
        # Slot 0 packs committer (20 bytes, low) and nextEvent (8 bytes): not zero, as it is after the first event.
        slot = (1 << 160) | int(account, 16)
        override = {
            _BASELINE_ADDRESS: {
                "code": self._baseline.deployed_bytecode,
                "state": {"0x" + _ZERO.hex(): "0x" + slot.to_bytes(32, "big").hex()},
            }
        }
        transaction = {
            "from": account,
            "to": _BASELINE_ADDRESS,
            "data": contract.encode_abi("record", args=[1, b"\xff" * 32]),
        }
        try:
            return int(_asked(lambda: self._w3.eth.estimate_gas(transaction, "latest", override)))  # type: ignore[arg-type]
        except ContractLogicError as error:
            raise CallReverts("baseline.record", error.message or "no reason given") from None

    def _read(self, contract: str, function: str, args: tuple[Any, ...], at: Block) -> Any:
        bound = self._contracts[contract].get_function_by_name(function)(*args)
        try:
            return _asked(lambda: bound.call(block_identifier=at.number))
        except BadFunctionCallOutput:
            return None  # no code there at that block


def _asked(question: Callable[[], T]) -> T:
    """An answer, or ChainUnavailable; what says something about the chain itself passes through."""
    try:
        return question()
    except (BlockNotFound, TransactionNotFound, BadFunctionCallOutput, ContractLogicError):
        raise
    except (requests.RequestException, Web3Exception, ValueError, KeyError) as error:
        raise ChainUnavailable(_words(error)) from error


def _words(error: Exception) -> str:
    """Returns what may be logged. An error of the connection names method and node itself (`chain_relay.rpc`)."""
    return str(error) if isinstance(error, requests.RequestException) else f"{type(error).__name__}: {error}"


def _revert_reason(contract: Contract, error: ContractLogicError) -> str:
    data = error.data
    if isinstance(data, str) and len(data) >= 10:
        for item in cast(list[dict[str, Any]], contract.abi):
            if item.get("type") == "error":
                inputs = ",".join(part["type"] for part in item.get("inputs", []))
                if Web3.keccak(text=f"{item['name']}({inputs})")[:4].hex() == data[2:10]:
                    return str(item["name"])
    return error.message or "no reason given"


def _hex(value: bytes) -> str:
    return "0x" + bytes(value).hex()
