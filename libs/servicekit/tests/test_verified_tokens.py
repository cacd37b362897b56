"""A token is verified once, and its principal is remembered no longer than verifying it again would say the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from servicekit.auth import DevelopmentIssuer, KeySet, Principal, TokenVerifier
from servicekit.auth.verified import VerifiedTokens
from servicekit.errors import Unauthenticated

ALICE = Principal("alice", frozenset({"curator"}))


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_principal_is_remembered_until_its_token_expires() -> None:
    clock = Clock()
    verified = VerifiedTokens(clock=clock)
    verified.remember("token", ALICE, reading=1, expires=1010)
    assert verified.find("token", reading=1) == ALICE
    assert verified.find("tokens", reading=1) is None
    clock.now = 1010
    assert verified.find("token", reading=1) is None


@pytest.mark.parametrize("reading", [2, None])
def test_keys_that_were_read_again_or_should_be_end_it(reading: int | None) -> None:
    verified = VerifiedTokens(clock=Clock())
    verified.remember("token", ALICE, reading=1, expires=2000)
    assert verified.find("token", reading) is None


def test_at_most_so_many_are_remembered_and_the_least_recently_used_is_forgotten() -> None:
    verified = VerifiedTokens(most=2, clock=Clock())
    for token in ("a", "b", "c"):
        verified.remember(token, ALICE, reading=1, expires=2000)
    assert [verified.find(token, reading=1) for token in ("a", "b", "c")] == [None, ALICE, ALICE]


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    DevelopmentIssuer(tmp_path).ensure_keys()
    return tmp_path / "issuer" / "jwks.json"


def test_a_withdrawn_key_stops_working_for_a_token_that_was_verified(tmp_path: Path, keys: Path) -> None:
    clock = Clock()
    verifier = TokenVerifier(
        KeySet(str(keys), max_age_s=600, clock=clock), "openledger-development", "openledger"
    )
    token = DevelopmentIssuer(tmp_path).mint("alice", ["curator"])
    assert verifier.known(token) is None
    verifier.verify(token)
    verifier.verify(token)
    assert verifier.known(token) == ALICE
    keys.write_text(json.dumps({"keys": []}))
    clock.now += 601
    assert verifier.known(token) is None
    with pytest.raises(Unauthenticated):
        verifier.verify(token)


def test_a_token_that_was_refused_is_not_remembered(tmp_path: Path, keys: Path) -> None:
    verifier = TokenVerifier(KeySet(str(keys)), "another issuer", "openledger")
    token = DevelopmentIssuer(tmp_path).mint("alice", ["curator"])
    with pytest.raises(Unauthenticated):
        verifier.verify(token)
    assert verifier.known(token) is None
