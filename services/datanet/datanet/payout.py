"""Checks the EVM addresses that receive rewards, with the checksum that detects typing errors."""

from __future__ import annotations

import re

from eth_hash.auto import keccak

from servicekit.errors import InvalidArgument

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")


def checksum(address: str) -> str:
    """Returns the EIP-55 form of an address (0x and 40 hex digits), in which a hash decides each letter's case."""
    digits = address[2:].lower()
    hashed = keccak(digits.encode()).hex()
    return "0x" + "".join(
        digit.upper() if int(nibble, 16) >= 8 else digit
        for digit, nibble in zip(digits, hashed, strict=False)
    )


def check_address(field: str, address: str) -> None:
    """Raises InvalidArgument that names `field` unless the address is "" or has its EIP-55 checksum."""
    if not address:
        return
    if not _ADDRESS.fullmatch(address):
        raise InvalidArgument(field, "evm_address", "must be 0x and 40 hex digits", address)
    if address != checksum(address):
        message = f"has a wrong EIP-55 checksum: it has a typing error, or should be {checksum(address)}"
        raise InvalidArgument(field, "eip55_checksum", message, address)
    if int(address, 16) == 0:
        raise InvalidArgument(
            field, "zero_address", "must not be the zero address: rewards there cannot be claimed", address
        )
