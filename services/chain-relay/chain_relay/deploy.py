"""Puts the contracts on a chain, once: run again after a crash, it finishes what is missing.

Addresses follow from the contracts' code and a salt (CREATE2, through the deterministic deployment proxy that
anvil and OP Stack chains have), and roles are asked for before they are given. So nothing has to be remembered
between two runs, and the file with the addresses is only written at the end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eth_abi.abi import encode
from eth_utils.crypto import keccak
from hexbytes import HexBytes
from requests import RequestException
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_exponential
from web3 import Web3
from web3.contract.contract import Contract
from web3.exceptions import TransactionNotFound, Web3Exception
from web3.types import TxReceipt

from chain_relay.contracts import CONTRACT_OF, Deployment, load_artifact
from chain_relay.signer import DEVELOPMENT_CHAIN_IDS, Signer, Unsigned
from servicekit import crash
from servicekit.errors import StartupError

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
"""Between two questions whether a transaction is mined: a development chain mines at once, others in seconds."""

_PROXY = Web3.to_checksum_address("0x4e59b44847b379578588920cA78FbF26c0B4956C")
_SALT = keccak(text="openledger/1")
_ROLES = (
    ("token", "MINTER_ROLE"),
    ("registry", "REGISTRAR_ROLE"),
    ("ledger", "COMMITTER_ROLE"),
    ("distributor", "PROPOSER_ROLE"),
    ("distributor", "GUARDIAN_ROLE"),
)


@dataclass(frozen=True)
class DeployPlan:
    """What is deployed, and how it is set up."""

    artifacts: Path
    reward_delay_s: int
    funding: int
    """Base units minted to the distributor where it holds less; development chains only."""
    patience_s: float = 300.0
    """Longest wait for all transactions together."""


@dataclass(frozen=True)
class _Sent:
    """A transaction on its way, and how to see that its purpose is reached, by whichever transaction."""

    purpose: str
    hash: str
    reached: Callable[[], bool]


class _Deployer:
    """Sends what is missing; `wait` ends a stage whose transactions do not need each other's effect."""

    def __init__(self, w3: Web3, signer: Signer, plan: DeployPlan) -> None:
        self._w3 = w3
        self._signer = signer
        self._plan = plan
        self._chain_id = int(w3.eth.chain_id)
        self._sent: list[_Sent] = []
        self._deadline = time.monotonic() + plan.patience_s
        self.found_some = False
        """Whether a contract was there before."""

    def place(self, name: str, types: list[str], arguments: list[Any]) -> Contract:
        """A contract at the address its code and arguments decide, deployed if it is not there."""
        artifact = load_artifact(self._plan.artifacts, CONTRACT_OF[name])
        code = bytes(HexBytes(artifact.bytecode)) + encode(types, arguments)
        digest = keccak(b"\xff" + bytes(HexBytes(_PROXY)) + _SALT + keccak(code))
        address = Web3.to_checksum_address(digest[12:])
        if self._w3.eth.get_code(address):
            self.found_some = True
        else:
            self._send(f"deploy {name}", _PROXY, _SALT + code, lambda: bool(self._w3.eth.get_code(address)))
            logger.info("deploying %s at %s", name, address)
        return self._w3.eth.contract(address=address, abi=artifact.abi)

    def grant(self, contract: Contract, role_name: str) -> None:
        """Gives the signer a role it lacks."""
        role = contract.get_function_by_name(role_name)().call()
        has = contract.get_function_by_name("hasRole")(role, self._signer.address)
        if not has.call():
            data = contract.encode_abi("grantRole", args=[role, self._signer.address])
            self._send(f"grant {role_name}", str(contract.address), HexBytes(data), lambda: bool(has.call()))

    def fund(self, token: Contract, distributor: Contract) -> None:
        """Mints what the distributor holds less than the plan says, on a development chain."""
        balance = token.get_function_by_name("balanceOf")(distributor.address)
        lacking = self._plan.funding - int(balance.call())
        claimed = int(distributor.get_function_by_name("totalClaimed")().call())
        if lacking > claimed:
            data = token.encode_abi("mint", args=[distributor.address, lacking - claimed])
            self._send(
                "fund the distributor",
                str(token.address),
                HexBytes(data),
                lambda: int(balance.call()) + claimed >= self._plan.funding,
            )

    def _send(self, purpose: str, to: str, data: bytes, reached: Callable[[], bool]) -> None:
        latest = self._w3.eth.get_block("latest")
        tip = int(self._w3.eth.max_priority_fee)
        gas = self._w3.eth.estimate_gas(
            {
                "from": Web3.to_checksum_address(self._signer.address),
                "to": Web3.to_checksum_address(to),
                "data": data,
            }
        )
        signed = self._signer.sign(
            Unsigned(
                chain_id=self._chain_id,
                # Pending ones count: a run that died may have left transactions that are not mined yet.
                nonce=self._w3.eth.get_transaction_count(
                    Web3.to_checksum_address(self._signer.address), "pending"
                ),
                to=to,
                data=bytes(data),
                gas_limit=int(gas * 1.25),
                max_fee=2 * int(latest.get("baseFeePerGas", 0)) + tip,
                priority_fee=tip,
            )
        )
        with crash.step("send transaction"):
            self._w3.eth.send_raw_transaction(HexBytes(signed.raw))
        self._sent.append(_Sent(purpose, signed.hash, reached))

    def confirm(self) -> None:
        """Returns when the purposes of all that was sent are reached. Raises StartupError."""
        for sent in self._sent:
            waiting = Retrying(
                retry=retry_if_result(lambda reached: not reached),
                stop=stop_after_delay(max(0.0, self._deadline - time.monotonic())),
                wait=wait_exponential(multiplier=_FIRST_PAUSE_S, max=_LONGEST_PAUSE_S),
            )
            try:
                waiting(self._is_reached, sent)
            except RetryError:
                raise StartupError(
                    f"cannot {sent.purpose}: transaction {sent.hash} is not mined; "
                    f"the contracts were not deployed within {self._plan.patience_s:g} s"
                ) from None
        self._sent.clear()

    def _is_reached(self, sent: _Sent) -> bool:
        """Raises StartupError when the transaction was reverted, and no other did what it was for."""
        if sent.reached():
            return True
        receipt = self._receipt(sent.hash)
        if receipt is not None and not receipt["status"] and not sent.reached():
            raise StartupError(f"cannot {sent.purpose}: transaction {sent.hash} was reverted")
        return False

    def _receipt(self, transaction_hash: str) -> TxReceipt | None:
        try:
            return self._w3.eth.get_transaction_receipt(HexBytes(transaction_hash))
        except TransactionNotFound:
            return None


def deploy(w3: Web3, signer: Signer, plan: DeployPlan, file: Path) -> Deployment:
    """Deploys what is missing, gives the signer its roles, writes the addresses.

    Raises StartupError: the chain lacks the deployment proxy or stops answering, or a transaction fails.
    """
    try:
        return _deploy(w3, signer, plan, file)
    except (RequestException, Web3Exception) as error:
        raise StartupError(f"the contracts are not (all) deployed, run it again: {error}") from error


def _deploy(w3: Web3, signer: Signer, plan: DeployPlan, file: Path) -> Deployment:
    if not w3.eth.get_code(_PROXY):
        raise StartupError(f"chain {w3.eth.chain_id} has no deployment proxy at {_PROXY}")
    before = int(w3.eth.block_number)
    deployer = _Deployer(w3, signer, plan)
    admin = signer.address
    token = deployer.place("token", ["address"], [admin])
    contracts = {
        "token": token,
        "registry": deployer.place("registry", ["address"], [admin]),
        "ledger": deployer.place("ledger", ["address"], [admin]),
        "distributor": deployer.place(
            "distributor", ["address", "address", "uint64"], [token.address, admin, plan.reward_delay_s]
        ),
    }
    deployer.confirm()
    development = int(w3.eth.chain_id) in DEVELOPMENT_CHAIN_IDS
    for name, role in _ROLES:
        if role != "MINTER_ROLE" or development:
            deployer.grant(contracts[name], role)
    deployer.confirm()
    if development and plan.funding:
        deployer.fund(token, contracts["distributor"])
        deployer.confirm()
    found = Deployment(
        chain_id=int(w3.eth.chain_id),
        # A run that finishes another's work does not know when that one began: events are sought from the start.
        first_block=0 if deployer.found_some else before,
        **{name: str(contract.address) for name, contract in contracts.items()},
    )
    found.save(file)
    return found


def check(w3: Web3, deployment: Deployment, file: Path) -> None:
    """Raises StartupError when the contracts are not where the file says."""
    chain_id = int(w3.eth.chain_id)
    if chain_id != deployment.chain_id:
        raise StartupError(f"{file} is of chain {deployment.chain_id}, the node is on chain {chain_id}")
    for name in CONTRACT_OF:
        address = getattr(deployment, name)
        if not w3.eth.get_code(Web3.to_checksum_address(address)):
            raise StartupError(
                f"chain {chain_id} has no {name} at {address}, as {file} says: is it a new chain under an old state?"
            )
