"""What people do on the chain themselves: read what stands there, and claim. Only an RPC address is needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eth_account import Account
from openledger.settlement.v1 import settlement_pb2 as pb
from requests.exceptions import RequestException
from web3 import HTTPProvider, Web3
from web3.contract import Contract
from web3.exceptions import Web3Exception
from web3.types import TxParams, Wei

from openledger_cli.connection import Connections
from servicekit.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable


def door(name: str, inputs: list[str], outputs: list[str], view: bool = True) -> dict[str, Any]:
    """A function of a contract, as an ABI describes it."""
    return {
        "type": "function",
        "name": name,
        "inputs": [{"name": f"a{index}", "type": kind} for index, kind in enumerate(inputs)],
        "outputs": [{"name": f"r{index}", "type": kind} for index, kind in enumerate(outputs)],
        "stateMutability": "view" if view else "nonpayable",
    }


# The contracts' public doors, written out here so that a verifier trusts no artifact of the platform.
LEDGER_ABI = [
    door("roots", ["uint64"], ["bytes32"]),
    door("verify", ["uint64", "bytes32", "bytes32[]"], ["bool"]),
]
REGISTRY_ABI = [
    door("datasets", ["bytes32"], ["bytes32", "bytes32"]),
    door("models", ["bytes32"], ["bytes32", "bytes32", "bytes32", "uint8"]),
]
DISTRIBUTOR_ABI = [
    door("acceptedRoot", [], ["bytes32"]),
    door("acceptedNumber", [], ["uint64"]),
    door("claimed", ["address"], ["uint256"]),
    door("token", [], ["address"]),
    door("claim", ["address", "uint256", "bytes32[]"], [], view=False),
    {
        "type": "event",
        "name": "Accepted",
        "anonymous": False,
        "inputs": [
            {"name": "number", "type": "uint64", "indexed": True},
            {"name": "root", "type": "bytes32", "indexed": False},
            {"name": "total", "type": "uint256", "indexed": False},
        ],
    },
    {
        "type": "event",
        "name": "Claimed",
        "anonymous": False,
        "inputs": [
            {"name": "account", "type": "address", "indexed": True},
            {"name": "amount", "type": "uint256", "indexed": False},
            {"name": "cumulative", "type": "uint256", "indexed": False},
        ],
    },
]
TOKEN_ABI = [door("balanceOf", ["address"], ["uint256"])]


@dataclass
class Chain:
    """A chain by its JSON-RPC address."""

    rpc: str

    def __post_init__(self) -> None:
        # Retries are the caller's: a transaction sent twice by the transport would hide what happened.
        self.web3 = Web3(
            HTTPProvider(self.rpc, exception_retry_configuration=None, request_kwargs={"timeout": 20})
        )
        try:
            self.chain_id = self.web3.eth.chain_id
        except (RequestException, Web3Exception, ValueError) as error:
            raise Unavailable("NO_CHAIN", f"no chain answers at {self.rpc}: {type(error).__name__}") from None

    def contract(self, address: str, abi: list[dict[str, Any]]) -> Contract:
        """A contract's doors. Raises InvalidArgument when no contract stands at the address."""
        try:
            checksummed = Web3.to_checksum_address(address)
        except ValueError:
            raise InvalidArgument(
                "address", "0x and 40 hex digits", f"{address!r} is no address", address
            ) from None
        if not self.web3.eth.get_code(checksummed):
            raise InvalidArgument(
                "address", "a contract", f"no contract stands at {address} on chain {self.chain_id}", address
            )
        return self.web3.eth.contract(address=checksummed, abi=abi)

    def transact(self, call: Any, key: str) -> Any:
        """Signs and sends a contract call and waits for its receipt. Raises FailedPrecondition when it reverts."""
        account = Account.from_key(key)
        try:
            gas = int(call.estimate_gas({"from": account.address}) * 1.2)
        except Web3Exception as error:
            raise FailedPrecondition(
                "REVERTED", f"the contract refuses: {error}", subject=account.address
            ) from None
        transaction: TxParams = call.build_transaction(
            {
                "from": account.address,
                "nonce": self.web3.eth.get_transaction_count(account.address, "pending"),
                "gas": gas,
                "chainId": self.chain_id,
                "maxPriorityFeePerGas": Wei(10**8),
                "maxFeePerGas": Wei(2 * int(self.web3.eth.get_block("latest")["baseFeePerGas"]) + 10**8),
            }
        )
        sent = self.web3.eth.send_raw_transaction(account.sign_transaction(transaction).raw_transaction)
        return self.web3.eth.wait_for_transaction_receipt(sent, timeout=120, poll_latency=0.2)


@dataclass(frozen=True)
class Claim:
    """What a claim paid."""

    address: str
    received: int
    transaction_hash: str
    gas_used: int


def claim_reward(connections: Connections, rpc: str, key_file: str) -> Claim:
    """Claims an account's rewards by its proof; the account's own key signs.

    Raises:
        NotFound: no key file, or the account has no rewards.
        FailedPrecondition: the contract refuses, e.g. nothing new to claim.
    """
    try:
        key = Path(key_file).read_text().strip()
        address = str(Account.from_key(key).address)
    except OSError:
        raise NotFound("key file", key_file) from None
    except ValueError:
        raise InvalidArgument(
            "key_file", "a private key as hex", f"{key_file} holds no private key"
        ) from None
    proof = connections.settlement.GetRewardProof(
        pb.GetRewardProofRequest(address=address), timeout=connections.deadline_s
    )
    chain = Chain(rpc)
    distributor = chain.contract(proof.distributor_address, DISTRIBUTOR_ABI)
    token = chain.contract(distributor.functions.token().call(), TOKEN_ABI)
    before = int(token.functions.balanceOf(address).call())
    siblings = [bytes.fromhex(sibling.removeprefix("0x")) for sibling in proof.proof]
    receipt = chain.transact(distributor.functions.claim(address, int(proof.cumulative), siblings), key)
    received = int(token.functions.balanceOf(address).call()) - before
    return Claim(address, received, "0x" + bytes(receipt["transactionHash"]).hex(), int(receipt["gasUsed"]))
