"""Keys, settings and deployment files: what is wrong is said in one line, and no key is ever quoted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from eth_account import Account

from chain_relay.contracts import Deployment, load_artifact
from chain_relay.settings import Settings, checked_address
from chain_relay.signer import Unsigned, open_signer
from servicekit.errors import StartupError

KEY = "0x" + "11" * 32


def test_on_a_development_chain_no_key_means_anvils_first() -> None:
    assert open_signer(31337, None, None, None).address == "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"


def test_a_bare_key_is_refused_on_a_chain_of_value() -> None:
    with pytest.raises(StartupError, match="only for development chains"):
        open_signer(1, KEY, None, None)
    with pytest.raises(StartupError, match="it has no key"):
        open_signer(10, None, None, None)


def test_a_keystore_opens_on_any_chain_with_its_password(tmp_path: Path) -> None:
    store, password = tmp_path / "key.json", tmp_path / "password"
    store.write_text(json.dumps(Account.encrypt(KEY, "secret", kdf="pbkdf2", iterations=2)))
    password.write_text("secret\n")
    assert open_signer(1, None, store, password).address == Account.from_key(KEY).address
    password.write_text("wrong")
    with pytest.raises(StartupError, match="does not open"):
        open_signer(1, None, store, password)
    with pytest.raises(StartupError, match="PASSWORD_FILE"):
        open_signer(1, None, store, None)
    with pytest.raises(StartupError, match="cannot read"):
        open_signer(1, None, tmp_path / "missing", password)


def test_a_bad_key_is_named_and_not_quoted() -> None:
    with pytest.raises(StartupError) as caught:
        open_signer(31337, "0xnotakey", None, None)
    assert "notakey" not in str(caught.value)


def test_signing_twice_gives_the_same_bytes() -> None:
    unsigned = Unsigned(
        chain_id=31337,
        nonce=0,
        to="0x" + "22" * 20,
        data=b"data",
        gas_limit=100_000,
        max_fee=2,
        priority_fee=1,
    )
    signer = open_signer(31337, KEY, None, None)
    assert signer.sign(unsigned) == signer.sign(unsigned)


def test_settings_refuse_a_split_that_is_not_whole_and_addresses_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="10000 in all"):
        Settings.load(auth_mode="development", state_dir=tmp_path, split_platform_bps=1)
    with pytest.raises(StartupError, match="PLATFORM_ADDRESS"):
        Settings.load(auth_mode="development", state_dir=tmp_path, platform_address="0x12")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ""),
        ("0x70997970c51812dc3a010c7d01b50e0d17dc79c8", "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"),
        ("0x70997970C51812dc3A010C7d01b50e0d17dc79C8", "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"),
    ],
)
def test_addresses_are_kept_with_their_checksum(text: str, found: str) -> None:
    assert checked_address(text) == found


def test_a_wrong_checksum_is_a_typing_error_and_refused() -> None:
    with pytest.raises(ValueError, match="EIP-55"):
        checked_address("0x70997970c51812dc3A010C7d01b50e0d17dc79C8")


def test_addresses_of_a_deployment_are_written_and_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "chain" / "contracts.json"
    assert Deployment.load(file) is None
    deployment = Deployment(
        chain_id=31337, token="0x1", registry="0x2", ledger="0x3", distributor="0x4", first_block=5
    )
    deployment.save(file)
    assert Deployment.load(file) == deployment
    file.write_text("{")
    with pytest.raises(StartupError, match="does not hold contract addresses"):
        Deployment.load(file)


def test_contracts_that_were_not_built_are_named_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="make contracts"):
        load_artifact(tmp_path, "AttributionLedger")
