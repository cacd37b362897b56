"""Settings say where they come from and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field

from servicekit.errors import StartupError
from servicekit.settings import ServiceSettings


class BakerySettings(ServiceSettings):
    service: ClassVar[str] = "bakery"
    ovens: int = Field(1, ge=1, description="How many.")


@pytest.fixture(autouse=True)
def _asked_for_development(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENLEDGER_AUTH_MODE", "development")


def test_all_local_files_are_below_the_state_folder(tmp_path: Path) -> None:
    settings = BakerySettings.load(state_dir=tmp_path)
    assert settings.database_url == f"sqlite:///{tmp_path}/bakery/bakery.db"
    assert settings.event_log == f"embedded:{tmp_path}/events.db"
    assert settings.object_store == f"{tmp_path}/objects"
    assert settings.auth_jwks == f"{tmp_path}/issuer/jwks.json"


def test_a_services_own_variable_wins_over_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENLEDGER_GRACE_S", "3")
    assert BakerySettings.load().grace_s == 3
    monkeypatch.setenv("OPENLEDGER_BAKERY_GRACE_S", "5")
    assert BakerySettings.load().grace_s == 5
    assert ServiceSettings.load().grace_s == 3


def test_a_services_own_setting_needs_the_services_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENLEDGER_OVENS", "7")
    assert BakerySettings.load().ovens == 1
    monkeypatch.setenv("OPENLEDGER_BAKERY_OVENS", "7")
    assert BakerySettings.load().ovens == 7


def test_a_bad_value_is_one_line_with_variable_value_and_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENLEDGER_BAKERY_OVENS", "0")
    monkeypatch.setenv("OPENLEDGER_GRPC_PORT", "here")
    with pytest.raises(StartupError) as refused:
        BakerySettings.load()
    line = str(refused.value)
    assert "\n" not in line
    assert "OPENLEDGER_BAKERY_OVENS='0'" in line
    assert "greater than or equal to 1" in line
    assert "OPENLEDGER_GRPC_PORT='here'" in line


def test_a_misspelt_variable_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENLEDGER_BAKERY_GRCP_PORT", "1")
    assert BakerySettings.unknown_variables() == ["OPENLEDGER_BAKERY_GRCP_PORT"]


def test_the_development_issuer_must_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENLEDGER_AUTH_MODE")
    with pytest.raises(StartupError, match="OPENLEDGER_AUTH_MODE=development"):
        BakerySettings.load()
    oidc = BakerySettings.load(auth_issuer="https://login.example", insecure_transport=True)
    assert (oidc.auth_mode, oidc.auth_jwks) == ("oidc", "")


def test_keys_that_anyone_could_replace_on_their_way_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENLEDGER_AUTH_MODE")
    for wrong in (
        {"auth_issuer": "http://login.example"},
        {"auth_issuer": "https://login.example", "auth_jwks": "http://login.example/jwks"},
        {"auth_issuer": "login.example"},
    ):
        with pytest.raises(StartupError, match=r"use https|not a URL"):
            BakerySettings.load(insecure_transport=True, **wrong)
    here = BakerySettings.load(insecure_transport=True, auth_issuer="http://127.0.0.1:4000")
    assert here.auth_issuer == "http://127.0.0.1:4000"
    named = BakerySettings.load(insecure_transport=True, auth_issuer="name", auth_jwks="/etc/keys.json")
    assert named.auth_jwks == "/etc/keys.json"


def test_plain_text_must_be_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert BakerySettings.load().grpc_host == "127.0.0.1"  # development was asked for
    monkeypatch.delenv("OPENLEDGER_AUTH_MODE")
    with pytest.raises(StartupError, match="OPENLEDGER_INSECURE_TRANSPORT=1"):
        BakerySettings.load(auth_issuer="https://login.example")


@pytest.mark.parametrize("asked", [False, True])
def test_plain_text_never_leaves_this_machine_not_even_when_asked_for(asked: bool) -> None:
    for host in ("0.0.0.0", "10.0.0.7", "::"):
        with pytest.raises(StartupError, match=r"reachable by other machines.*tls_cert"):
            BakerySettings.load(grpc_host=host, insecure_transport=asked)
    encrypted = BakerySettings.load(grpc_host="0.0.0.0", tls_cert="cert.pem", tls_key="key.pem")
    assert encrypted.grpc_host == "0.0.0.0"


def test_half_a_tls_setting_is_refused() -> None:
    with pytest.raises(StartupError, match="go together"):
        BakerySettings.load(tls_cert="cert.pem")
    with pytest.raises(StartupError, match="tls_client_ca needs"):
        BakerySettings.load(tls_client_ca="ca.pem")
