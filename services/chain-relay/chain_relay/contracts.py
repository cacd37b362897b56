"""The compiled contracts, and where a deployment's contracts stand."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from servicekit.errors import StartupError
from servicekit.files import write_whole

CONTRACT_OF = {
    "ledger": "AttributionLedger",
    "registry": "Registry",
    "distributor": "RewardDistributor",
    "token": "OpenToken",
}


@dataclass(frozen=True)
class Artifact:
    """A compiled contract, as contracts/build.py writes it."""

    abi: list[dict[str, Any]]
    bytecode: str
    deployed_bytecode: str


def load_artifact(folder: Path, name: str) -> Artifact:
    """One compiled contract. Raises StartupError when it was not built."""
    try:
        content = json.loads((folder / f"{name}.json").read_text("utf-8"))
        return Artifact(content["abi"], content["bytecode"], content["deployedBytecode"])
    except FileNotFoundError:
        raise StartupError(f"contract {name} is not in {folder}: run `make contracts`") from None
    except (ValueError, KeyError) as error:
        raise StartupError(
            f"contract {name} in {folder} is damaged ({error}): run `make contracts`"
        ) from None


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """Addresses (EIP-55) of one deployment on one chain."""

    chain_id: int
    token: str
    registry: str
    ledger: str
    distributor: str
    first_block: int
    """No event of these contracts is older than this block."""

    def save(self, path: Path) -> None:
        """Writes the addresses; a reader sees the whole file or none."""
        write_whole(path, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> Deployment | None:
        """The addresses in a file; None when there is no file. Raises StartupError for a damaged one."""
        try:
            return cls(**json.loads(path.read_text("utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise StartupError(f"{path} does not hold contract addresses: {error}") from None
