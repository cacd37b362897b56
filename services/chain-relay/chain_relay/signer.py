"""Who signs: a key never leaves its signer, and a key in the environment is for development chains alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.address import to_canonical_address

from servicekit.errors import StartupError

DEVELOPMENT_CHAIN_IDS = frozenset({31337, 901})
"""anvil's and the OP Stack devnet's: keys and money on these are worth nothing."""

_ANVIL_FIRST_KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
"""The first account of the mnemonic that every anvil prints at start: public, rich on development chains alone."""


@dataclass(frozen=True, kw_only=True)
class Unsigned:
    """An EIP-1559 transaction before it is signed. Prices in wei a unit of gas."""

    chain_id: int
    nonce: int
    to: str
    data: bytes
    gas_limit: int
    max_fee: int
    priority_fee: int


@dataclass(frozen=True)
class Signed:
    """Signed bytes and the hash they will be known by."""

    raw: bytes
    hash: str


class Signer(Protocol):
    """Something that signs for one address: a local key here; a KMS or web3signer elsewhere."""

    @property
    def address(self) -> str: ...

    def sign(self, transaction: Unsigned) -> Signed: ...


class LocalSigner:
    """Signs with a key in this process's memory."""

    def __init__(self, key: str | bytes) -> None:
        self._account: LocalAccount = Account.from_key(key)

    @property
    def address(self) -> str:
        """The signer's address, EIP-55."""
        return str(self._account.address)

    def sign(self, transaction: Unsigned) -> Signed:
        """Signs; the same transaction always gives the same bytes (RFC 6979)."""
        signed = self._account.sign_transaction(
            {
                "type": 2,
                "chainId": transaction.chain_id,
                "nonce": transaction.nonce,
                "to": to_canonical_address(transaction.to),
                "value": 0,
                "data": transaction.data,
                "gas": transaction.gas_limit,
                "maxFeePerGas": transaction.max_fee,
                "maxPriorityFeePerGas": transaction.priority_fee,
            }
        )
        return Signed(bytes(signed.raw_transaction), "0x" + bytes(signed.hash).hex())


def open_signer(
    chain_id: int, key: str | None, keystore: Path | None, keystore_password: Path | None
) -> LocalSigner:
    """The signer that settings ask for.

    A keystore file (with its password in another file) works on any chain; a key in the environment only on a
    development chain, where anvil's first account is the default.

    Raises:
        StartupError: no key for a chain of value, a bare key on one, or a keystore that does not open.
    """
    if keystore is not None:
        return LocalSigner(_decrypt(keystore, keystore_password))
    if chain_id not in DEVELOPMENT_CHAIN_IDS:
        held = "a bare key is only for development chains" if key else "it has no key"
        raise StartupError(f"chain {chain_id} needs OPENLEDGER_CHAIN_RELAY_KEYSTORE: {held}")
    try:
        return LocalSigner(key or _ANVIL_FIRST_KEY)
    except Exception:  # noqa: BLE001 - the library's message may quote the key
        raise StartupError(
            "OPENLEDGER_CHAIN_RELAY_SIGNER_KEY is not a private key (0x and 64 hex digits)"
        ) from None


def _decrypt(keystore: Path, password: Path | None) -> bytes:
    if password is None:
        raise StartupError(
            "OPENLEDGER_CHAIN_RELAY_KEYSTORE needs OPENLEDGER_CHAIN_RELAY_KEYSTORE_PASSWORD_FILE"
        )
    try:
        secret = password.read_text("utf-8").rstrip("\n")
        return bytes(Account.decrypt(json.loads(keystore.read_text("utf-8")), secret))
    except OSError as error:
        raise StartupError(f"cannot read {error.filename}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise StartupError(f"keystore {keystore} does not open with the password in {password}") from None
