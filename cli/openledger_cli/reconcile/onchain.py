"""What the contracts hold, as of one block."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from requests.exceptions import RequestException
from web3.contract import Contract
from web3.exceptions import Web3Exception

from openledger_cli.chain import DISTRIBUTOR_ABI, LEDGER_ABI, REGISTRY_ABI, Chain, door
from openledger_cli.reconcile.book import Away
from servicekit.errors import StartupError, Unavailable

_LEDGER = [*LEDGER_ABI, door("nextSeq", [], ["uint64"]), door("nextEvent", [], ["uint64"])]
_DISTRIBUTOR = [
    *DISTRIBUTOR_ABI,
    door("nextNumber", [], ["uint64"]),
    door("acceptedTotal", [], ["uint256"]),
    door("totalClaimed", [], ["uint256"]),
]
_AWAY = (RequestException, Web3Exception, ValueError)
ZERO = bytes(32)


class OnChain:
    """The ledger, the registry and the distributor of a deployment.

    Raises:
        StartupError: the contracts file is missing or damaged.
        Away: the node does not answer; from every method too.
    """

    def __init__(self, rpc: str, contracts: Path) -> None:
        try:
            self.addresses: dict[str, Any] = json.loads(contracts.read_text())
        except (OSError, ValueError) as error:
            raise StartupError(f"{contracts} does not hold contract addresses: {error}") from None
        self._rpc = rpc
        try:
            chain = Chain(rpc)
            self._block = chain.web3.eth.block_number
            self._ledger = chain.contract(self.addresses["ledger"], _LEDGER)
            self._registry = chain.contract(self.addresses["registry"], REGISTRY_ABI)
            self._distributor = chain.contract(self.addresses["distributor"], _DISTRIBUTOR)
        except (Unavailable, *_AWAY) as error:
            raise Away(
                f"no chain answers at {rpc} ({type(error).__name__}): start it, give --rpc, or --no-chain to leave it out"
            ) from None

    @property
    def chain_id(self) -> int:
        """Of the deployment."""
        return int(self.addresses["chain_id"])

    def next_seq(self) -> int:
        """How many batches are committed."""
        return int(self._ask(self._ledger, "nextSeq"))

    def next_event(self) -> int:
        """How many events are committed."""
        return int(self._ask(self._ledger, "nextEvent"))

    def root(self, seq: int) -> bytes:
        """A batch's root; 32 zero bytes when it is not committed."""
        return bytes(self._ask(self._ledger, "roots", seq))

    def dataset_root(self, name_hash: bytes) -> bytes:
        """A snapshot's root; 32 zero bytes when it is not registered."""
        return bytes(self._ask(self._registry, "datasets", name_hash)[0])

    def model(self, version_digest: bytes) -> tuple[bytes, int]:
        """A model version's report digest and state; (32 zero bytes, 0) when it is not recorded."""
        found = self._ask(self._registry, "models", version_digest)
        return bytes(found[2]), int(found[3])

    def accepted(self) -> tuple[int, bytes]:
        """Number and root of the accepted reward root."""
        return int(self._ask(self._distributor, "acceptedNumber")), bytes(
            self._ask(self._distributor, "acceptedRoot")
        )

    def claims(self) -> tuple[int, int]:
        """What was claimed, and what may be at most."""
        claimed = int(self._ask(self._distributor, "totalClaimed"))
        return claimed, int(self._ask(self._distributor, "acceptedTotal"))

    def _ask(self, contract: Contract, function: str, *arguments: Any) -> Any:
        try:
            return contract.functions[function](*arguments).call(block_identifier=self._block)
        except _AWAY as error:
            raise Away(f"the chain at {self._rpc} went away: {error}") from None
