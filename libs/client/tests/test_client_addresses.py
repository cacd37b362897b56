"""A service is found where the program, the environment or the local platform says, and one that has ended is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from openledger_client.addresses import Addresses, ServiceAddress
from openledger_client.auth import TokenFile, token_from_environment
from openledger_client.errors import ConfigurationError
from openledger_client.services import ALL, CHAIN_RELAY, TRAINER, by_name
from openledger_client.tls import Tls
from servicekit.address import Address, write_address


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("OPENLEDGER_"):
            monkeypatch.delenv(name)


def running(state_dir: Path, pid: int) -> Addresses:
    write_address(
        state_dir,
        Address(service="trainer", pid=pid, grpc="127.0.0.1:7401", metrics="127.0.0.1:7402", http=None),
    )
    return Addresses(state_dir=state_dir)


def test_a_running_service_is_found_by_its_address_file(tmp_path: Path) -> None:
    found = running(tmp_path, os.getpid()).of(TRAINER)
    assert found == ServiceAddress(grpc="127.0.0.1:7401", metrics="127.0.0.1:7402", pid=os.getpid())


def test_the_file_of_a_process_that_has_ended_is_no_address(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    with pytest.raises(ConfigurationError, match=f"process {ended.pid}, which has ended"):
        running(tmp_path, ended.pid).of(TRAINER)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"grpc": "a:1", "pid": "x"}', '{"grpc": "a:1", "pid": -1}']
)
def test_a_corrupt_file_is_said_to_be_corrupt_and_not_missing(tmp_path: Path, content: str) -> None:
    path = tmp_path / "run" / "trainer.json"
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(
        ConfigurationError, match=r"trainer\.json is corrupt: .*OPENLEDGER_TRAINER_ADDRESS=host:port"
    ):
        Addresses(state_dir=tmp_path).of(TRAINER)


def test_the_environment_wins_over_the_file_and_the_program_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = running(tmp_path, os.getpid())
    monkeypatch.setenv("OPENLEDGER_TRAINER_ADDRESS", "trainer:443")
    assert addresses.of(TRAINER).grpc == "trainer:443"
    assert Addresses(given={"trainer": "here:1"}).of(TRAINER).grpc == "here:1"


@pytest.mark.parametrize("address", ["http://127.0.0.1:7400", "https://trainer:443"])
def test_a_url_is_no_address(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="host:port, without http://"):
        Addresses(given={"trainer": address}).of(TRAINER)
    monkeypatch.setenv("OPENLEDGER_TRAINER_ADDRESS", address)
    with pytest.raises(ConfigurationError, match=f"{address}.*OPENLEDGER_TRAINER_ADDRESS"):
        Addresses().of(TRAINER)


def test_an_address_for_a_name_that_no_service_has_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'trianer'; the services are datanet, trainer"):
        Addresses(given={"trianer": "here:1", "datanet": "here:2"})


def test_the_environment_names_the_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENLEDGER_STATE_DIR", str(tmp_path))
    assert Addresses.from_environment().state_dir == tmp_path


def test_services_are_found_by_name() -> None:
    assert [by_name(service.name) for service in ALL] == list(ALL)
    with pytest.raises(KeyError, match="the services are datanet"):
        by_name("billing")
    assert CHAIN_RELAY.variable("address") == "OPENLEDGER_CHAIN_RELAY_ADDRESS"


def test_a_token_file_is_read_at_each_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    monkeypatch.setenv("OPENLEDGER_TOKEN_FILE", str(file))
    token = token_from_environment()
    assert isinstance(token, TokenFile)
    with pytest.raises(ConfigurationError, match="cannot read the token file"):
        token()
    file.write_text("first\n")
    assert token() == "first"
    file.write_text("second\n")
    assert token() == "second"


def test_a_certificate_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENLEDGER_TLS_CA", str(tmp_path / "ca.pem"))
    tls = Tls.from_environment()
    assert tls is not None
    with pytest.raises(ConfigurationError, match=r"cannot read .*ca\.pem"):
        tls.credentials()
