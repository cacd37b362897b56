"""`openledger verify` says what it did not check, and does not call that success."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from identity.digest import canonical_json, sha256_bytes
from openledger_cli.bundle import layout
from openledger_cli.bundle.check import Contracts, Finding, check_bundle
from openledger_cli.commands.bundle import exit_code, show
from openledger_client.errors import Unavailable

REGISTRY, LEDGER, DISTRIBUTOR, FORGED = ("0x" + digit * 40 for digit in "abcd")
RIGHT = Contracts(registry=REGISTRY, ledger=LEDGER, distributor=DISTRIBUTOR)


class NoChain:
    chain_id = 1

    def contract(self, address: str, abi: object) -> object:
        raise Unavailable(f"no chain here for {address}", reason="NO_CHAIN")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle in which only the contracts' addresses are real."""
    contents: dict[str, Any] = {name: {} for name in layout.FILES}
    contents[layout.INCLUSION] = {"leaf": {"ledger_address": LEDGER}}
    contents[layout.REWARD] = {"distributor_address": DISTRIBUTOR}
    raw = {name: canonical_json(content) for name, content in contents.items()}
    for name, content in raw.items():
        (tmp_path / name).write_bytes(content)
    index = {
        "schema": layout.SCHEMA,
        "inference": "inferences/1",
        "account": "0x",
        "registry_address": REGISTRY,
        "files": {name: sha256_bytes(content) for name, content in raw.items()},
    }
    (tmp_path / layout.INDEX).write_bytes(canonical_json(index))
    return tmp_path


def contracts(bundle: Path, known: Contracts) -> Finding:
    found = {finding.check: finding for finding in check_bundle(bundle, NoChain(), known)}  # type: ignore[arg-type]
    assert found["files"].passed, found["files"].detail
    return found["contracts"]


def test_addresses_from_another_source_verify_the_contracts(bundle: Path) -> None:
    upper = Contracts(registry=REGISTRY.upper().replace("X", "x"), ledger=LEDGER, distributor=DISTRIBUTOR)
    for known in (RIGHT, upper):
        found = contracts(bundle, known)
        assert (found.passed, found.unchecked) == (True, "")


@pytest.mark.parametrize("name", ["registry", "ledger", "distributor"])
def test_a_bundle_that_names_another_contract_is_refused(bundle: Path, name: str) -> None:
    found = contracts(bundle, Contracts(**{name: FORGED}))
    assert not found.passed
    assert name in found.detail
    assert FORGED in found.detail


def test_contracts_that_only_the_bundle_names_are_not_checked(bundle: Path) -> None:
    found = contracts(bundle, Contracts(registry=REGISTRY))
    assert found.passed
    assert f"ledger {LEDGER}, distributor {DISTRIBUTOR}" in found.unchecked
    assert REGISTRY not in found.unchecked


def test_contracts_of_which_none_is_known_have_no_line_that_says_ok(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show(contracts(bundle, Contracts()))
    assert " ".join(capsys.readouterr().out.split()).startswith(
        "NOT CHECKED contracts: only the bundle names registry"
    )
    show(contracts(bundle, Contracts(registry=REGISTRY)))
    assert " ".join(capsys.readouterr().out.split()).startswith(
        "ok contracts: 1 of 3 addresses are the expected ones"
    )


def test_what_is_not_checked_ends_with_3_unless_it_is_accepted() -> None:
    good, wrong = Finding("files", True, ""), Finding("files", False, "")
    partly = Finding("snapshot root", True, "", "the records of datanets/a/snapshots/2")
    assert exit_code([good], False) == 0
    assert exit_code([good, partly], False) == 3
    assert exit_code([good, partly], True) == 0
    assert exit_code([wrong, partly], True) == 1
    assert json.dumps(partly.__dict__)
