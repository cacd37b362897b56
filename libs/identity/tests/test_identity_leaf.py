"""Leaves are encoded as the vectors say; the Solidity tests read the same file."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from typing import Any

import pytest

from identity.leaf import AttributionLeaf, InvalidLeaf, RewardLeaf

VECTORS: dict[str, list[dict[str, Any]]] = json.loads(
    (files("identity") / "vectors" / "leaves.json").read_text(encoding="utf-8")
)
NUMBERS = {"chain_id", "batch_seq", "event_index", "fee_paid", "cumulative_amount"}


def fields(vector: dict[str, Any]) -> dict[str, Any]:
    named = {key: value for key, value in vector.items() if key not in ("encoded", "leaf")}
    return {key: int(value) if key in NUMBERS else value for key, value in named.items()}


@pytest.mark.parametrize("vector", VECTORS["attribution"])
def test_attribution_leaves_follow_the_vectors(vector: dict[str, Any]) -> None:
    leaf = AttributionLeaf(**fields(vector))
    assert "0x" + leaf.encode().hex() == vector["encoded"]
    assert "0x" + leaf.hash().hex() == vector["leaf"]


@pytest.mark.parametrize("vector", VECTORS["reward"])
def test_reward_leaves_follow_the_vectors(vector: dict[str, Any]) -> None:
    leaf = RewardLeaf(**fields(vector))
    assert "0x" + leaf.encode().hex() == vector["encoded"]
    assert "0x" + leaf.hash().hex() == vector["leaf"]


def test_every_field_of_a_leaf_changes_its_hash() -> None:
    leaf = AttributionLeaf(**fields(VECTORS["attribution"][0]))
    other = AttributionLeaf(**fields(VECTORS["attribution"][2]))
    changed = [replace(leaf, **{name: getattr(other, name)}) for name in vars(leaf)]
    assert len({leaf.hash(), *(one.hash() for one in changed)}) == 10


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("chain_id", -1),
        ("batch_seq", 2**64),
        ("event_index", 2**64),
        ("fee_paid", 2**256),
        ("ledger", "5fbdb2315678afecb367f032d93f642f64180aa3"),
        ("ledger", "0x" + "zz" * 20),
        ("report_digest", "sha256:00"),
    ],
)
def test_a_field_that_does_not_fit_is_named(field: str, value: Any) -> None:
    leaf = replace(AttributionLeaf(**fields(VECTORS["attribution"][0])), **{field: value})
    with pytest.raises(InvalidLeaf) as caught:
        leaf.encode()
    assert caught.value.field == field
