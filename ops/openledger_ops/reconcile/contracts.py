"""What the contracts hold, as of one block."""

from __future__ import annotations

from dataclasses import dataclass

from openledger.settlement.v1 import settlement_pb2

from openledger_client.client import Client
from openledger_ops.chain import Argument, ChainError, Node
from openledger_ops.reconcile.book import Unreachable
from servicekit.errors import StartupError

ZERO = bytes(32)
_MODEL_WORDS = 4


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """The contracts of a deployment."""

    chain_id: int
    ledger: str
    registry: str
    distributor: str


def deployed(client: Client) -> Addresses:
    """Returns the contracts that the relay writes to, as it says. Raises OpenLedgerError."""
    info = client.settlement.GetSettlementInfo(settlement_pb2.GetSettlementInfoRequest())
    return Addresses(
        chain_id=info.chain_id,
        ledger=info.ledger_address,
        registry=info.registry_address,
        distributor=info.distributor_address,
    )


class Contracts:
    """The ledger, the registry and the distributor of a deployment.

    Raises:
        StartupError: the node is of another chain.
        Unreachable: the node does not answer. Every method raises it too.
    """

    def __init__(self, node: Node, addresses: Addresses) -> None:
        self.addresses = addresses
        self._node = node
        try:
            chain_id, self._block = node.chain_id(), node.block_number()
        except ChainError as error:
            raise Unreachable(
                f"the chain cannot be read: {error}; start its node, give --rpc, or --no-chain to leave it out"
            ) from None
        if chain_id != addresses.chain_id:
            raise StartupError(
                f"{node.shown} is a node of chain {chain_id}, the relay settles on chain {addresses.chain_id}:"
                " give --rpc a node of that chain"
            )

    def next_seq(self) -> int:
        """Returns how many batches are committed."""
        return _number(self._ledger("nextSeq()"))

    def next_event(self) -> int:
        """Returns how many events are committed."""
        return _number(self._ledger("nextEvent()"))

    def root(self, seq: int) -> bytes:
        """Returns a batch's root; 32 zero bytes when it is not committed."""
        return self._ledger("roots(uint64)", seq)[0]

    def dataset_root(self, name_hash: bytes) -> bytes:
        """Returns a snapshot's root; 32 zero bytes when it is not registered."""
        return self._view(self.addresses.registry, "datasets(bytes32)", name_hash)[0]

    def model(self, version_digest: bytes) -> tuple[bytes, int]:
        """Returns a model version's report digest and state; (32 zero bytes, 0) when it is not registered."""
        words = self._view(self.addresses.registry, "models(bytes32)", version_digest)
        if len(words) < _MODEL_WORDS:
            raise StartupError(
                f"{self.addresses.registry} is not the registry: models(bytes32) has {len(words)} words"
            )
        return words[2], int.from_bytes(words[3], "big")

    def accepted(self) -> tuple[int, bytes]:
        """Returns number and root of the accepted reward root."""
        return _number(self._distributor("acceptedNumber()")), self._distributor("acceptedRoot()")[0]

    def claims(self) -> tuple[int, int]:
        """Returns what was claimed, and the most that may be."""
        claimed = _number(self._distributor("totalClaimed()"))
        return claimed, _number(self._distributor("acceptedTotal()"))

    def _ledger(self, signature: str, *arguments: Argument) -> list[bytes]:
        return self._view(self.addresses.ledger, signature, *arguments)

    def _distributor(self, signature: str) -> list[bytes]:
        return self._view(self.addresses.distributor, signature)

    def _view(self, address: str, signature: str, *arguments: Argument) -> list[bytes]:
        try:
            return self._node.view(address, signature, arguments, self._block)
        except ChainError as error:
            raise Unreachable(f"the chain cannot be read: {error}") from None


def _number(words: list[bytes]) -> int:
    return int.from_bytes(words[0], "big")
