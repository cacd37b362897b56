"""A mistyped payout address is refused before anyone is paid."""

from __future__ import annotations

import pytest

from datanet.payout import check_address, checksum
from servicekit.errors import InvalidArgument

# The examples of EIP-55.
ADDRESSES = (
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
    "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
    "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
)


@pytest.mark.parametrize("address", ["", *ADDRESSES])
def test_checksummed_addresses_and_none_are_taken(address: str) -> None:
    check_address("payout_address", address)


@pytest.mark.parametrize("address", ADDRESSES)
def test_the_checksum_is_that_of_eip_55(address: str) -> None:
    assert checksum(address.lower()) == address


@pytest.mark.parametrize(
    ("address", "rule"),
    [
        (ADDRESSES[0].lower(), "eip55_checksum"),
        (ADDRESSES[0][:-1] + "e", "eip55_checksum"),
        (ADDRESSES[0][:-1], "evm_address"),
        ("5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "evm_address"),
        ("0x" + "0" * 40, "zero_address"),
    ],
)
def test_others_are_refused_by_field_and_rule(address: str, rule: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_address("contributor.payout_address", address)
    assert refused.value.metadata["field"] == "contributor.payout_address"
    assert refused.value.metadata["rule"] == rule
