"""Who acts in the story, and their chain accounts."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from eth_account import Account

Person = tuple[str, tuple[str, ...]]
"""A principal and its roles."""
OWNER = ("olga", ("curator",))
BUILDER = ("bela", ("builder",))
APPROVER = ("ann", ("approver",))
ANALYST = ("ana", ("user",))
OPERATOR = ("otto", ("operator",))
AUDITOR = ("aldo", ("auditor",))
TREASURY = "treasury"
"""Wallet of the Datanet's treasury, which receives the unattributed part."""


@dataclass(frozen=True)
class Wallet:
    """A contributor's chain account; its key never leaves the contributor's file."""

    address: str
    key_file: Path


def wallet_of(folder: Path, contributor: str) -> Wallet:
    """The contributor's account, made once."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{contributor}.key"
    if not path.exists():
        temporary = path.with_suffix(".tmp")
        temporary.touch(mode=0o600)
        temporary.write_text("0x" + secrets.token_hex(32))
        temporary.replace(path)
    return Wallet(str(Account.from_key(path.read_text().strip()).address), path)
