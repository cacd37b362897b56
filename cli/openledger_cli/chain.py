"""What an account holder does on the chain: read the contracts, and claim. Only a JSON-RPC address is needed."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from eth_account import Account
from openledger.settlement.v1 import settlement_pb2 as pb
from requests.exceptions import ConnectionError as RequestsConnectionError
from requests.exceptions import RequestException
from web3 import HTTPProvider, Web3
from web3.contract import Contract
from web3.exceptions import Web3Exception
from web3.types import RPCEndpoint, RPCResponse, TxParams, Wei

from openledger_client import Client
from openledger_client.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from servicekit.http_client import HttpClient, HttpError

_MAX_ANSWER_BYTES = 64 << 20


def abi_function(name: str, inputs: list[str], outputs: list[str], view: bool = True) -> dict[str, Any]:
    """Returns the ABI of one function of a contract."""
    return {
        "type": "function",
        "name": name,
        "inputs": [{"name": f"a{index}", "type": kind} for index, kind in enumerate(inputs)],
        "outputs": [{"name": f"r{index}", "type": kind} for index, kind in enumerate(outputs)],
        "stateMutability": "view" if view else "nonpayable",
    }


# The contracts' public functions, written out here so that a verifier trusts no artifact of the platform.
LEDGER_ABI = [
    abi_function("roots", ["uint64"], ["bytes32"]),
    abi_function("verify", ["uint64", "bytes32", "bytes32[]"], ["bool"]),
]
REGISTRY_ABI = [
    abi_function("datasets", ["bytes32"], ["bytes32", "bytes32"]),
    abi_function("models", ["bytes32"], ["bytes32", "bytes32", "bytes32", "uint8"]),
]
DISTRIBUTOR_ABI = [
    abi_function("acceptedRoot", [], ["bytes32"]),
    abi_function("acceptedNumber", [], ["uint64"]),
    abi_function("claimed", ["address"], ["uint256"]),
    abi_function("token", [], ["address"]),
    abi_function("claim", ["address", "uint256", "bytes32[]"], [], view=False),
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
TOKEN_ABI = [abi_function("balanceOf", ["address"], ["uint256"])]


class _Provider(HTTPProvider):
    """web3's provider with a deadline for the whole answer: its own timeout starts again with every byte.

    It does not retry: a transaction sent twice by the transport would hide what happened.
    """

    def __init__(self, rpc: str, timeout_s: float) -> None:
        super().__init__(rpc, exception_retry_configuration=None)
        self._client = HttpClient(timeout_s, _MAX_ANSWER_BYTES, environment=True)

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """Returns the node's answer. Raises requests' ConnectionError, which web3's users expect."""
        headers = {str(name): str(value) for name, value in self.get_request_headers().items()}
        content = self.encode_rpc_request(method, params)
        try:
            answer = self._client.exchange("POST", str(self.endpoint_uri), headers=headers, content=content)
        except HttpError as error:
            raise RequestsConnectionError(str(error)) from error
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise RequestsConnectionError(f"the node answers {answer.status}")
        return self.decode_rpc_response(answer.body)


@dataclass
class Chain:
    """A chain by its JSON-RPC address. An answer may take `timeout_s`."""

    rpc: str
    timeout_s: float = 20.0

    def __post_init__(self) -> None:
        self.web3 = Web3(_Provider(self.rpc, self.timeout_s))
        try:
            self.chain_id = self.web3.eth.chain_id
        except (RequestException, Web3Exception, ValueError) as error:
            raise Unavailable(
                f"no chain answers at {self.rpc}: {type(error).__name__}", reason="NO_CHAIN"
            ) from None

    def contract(self, address: str, abi: list[dict[str, Any]]) -> Contract:
        """Returns a contract's functions. Raises InvalidArgument when no contract stands at the address."""
        try:
            checksummed = Web3.to_checksum_address(address)
        except ValueError:
            raise InvalidArgument.of(
                "address", "0x and 40 hex digits", f"{address!r} is not an address", address
            ) from None
        if not self.web3.eth.get_code(checksummed):
            raise InvalidArgument.of(
                "address",
                "a contract",
                f"there is no contract at {address} on chain {self.chain_id}",
                address,
            )
        return self.web3.eth.contract(address=checksummed, abi=abi)

    def transact(self, call: Any, key: str) -> Any:
        """Signs and sends a contract call and waits for its receipt. Raises FailedPrecondition when it reverts."""
        account = Account.from_key(key)
        try:
            gas = int(call.estimate_gas({"from": account.address}) * 1.2)
        except Web3Exception as error:
            raise FailedPrecondition(
                f"the contract refuses: {error}", reason="REVERTED", subject=account.address
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


def claim_reward(client: Client, rpc: str, key_file: str) -> Claim:
    """Claims an account's rewards by its proof; the account's own key signs.

    Raises:
        NotFound: no key file, or the account has no rewards.
        FailedPrecondition: the contract refuses, e.g. nothing new to claim.
    """
    try:
        key = Path(key_file).read_text().strip()
        address = str(Account.from_key(key).address)
    except OSError:
        raise NotFound(f"key file {key_file!r} does not exist", reason="KEY_FILE_NOT_FOUND") from None
    except ValueError:
        raise InvalidArgument.of(
            "key_file", "a private key as hex", f"{key_file} holds no private key"
        ) from None
    proof = client.settlement.GetRewardProof(pb.GetRewardProofRequest(address=address))
    chain = Chain(rpc)
    distributor = chain.contract(proof.distributor_address, DISTRIBUTOR_ABI)
    token = chain.contract(distributor.functions.token().call(), TOKEN_ABI)
    before = int(token.functions.balanceOf(address).call())
    siblings = [bytes.fromhex(sibling.removeprefix("0x")) for sibling in proof.proof]
    receipt = chain.transact(distributor.functions.claim(address, int(proof.cumulative), siblings), key)
    received = int(token.functions.balanceOf(address).call()) - before
    return Claim(address, received, "0x" + bytes(receipt["transactionHash"]).hex(), int(receipt["gasUsed"]))
