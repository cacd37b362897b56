"""Keccak trees: proofs verify, and nothing else does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity.evm_merkle import EmptyTree, EvmMerkleTree, hash_pair, verify
from identity.keccak import keccak256

LEAVES = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=60, unique=True)


def test_keccak_is_not_sha3() -> None:
    assert keccak256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"


def test_one_leaf_is_its_own_root_and_needs_no_proof() -> None:
    leaf = keccak256(b"a")
    tree = EvmMerkleTree([leaf])
    assert (tree.root, tree.proof(0)) == (leaf, [])


def test_three_leaves_have_the_shape_of_the_standard_tree() -> None:
    low, middle, high = (bytes([n]) * 32 for n in (1, 2, 3))
    # Sorted leaves fill the array from its end: nodes 2, 3 and 4 are high, middle and low.
    assert EvmMerkleTree([middle, high, low]).root == hash_pair(hash_pair(low, middle), high)


@given(LEAVES)
def test_every_leaf_verifies_by_the_index_it_was_given_at(leaves: list[bytes]) -> None:
    tree = EvmMerkleTree(leaves)
    for index, leaf in enumerate(leaves):
        assert tree.leaf(index) == leaf
        assert verify(tree.root, leaf, tree.proof(index))


@given(LEAVES)
def test_root_does_not_depend_on_the_order_of_leaves(leaves: list[bytes]) -> None:
    assert EvmMerkleTree(sorted(leaves)).root == EvmMerkleTree(leaves).root


@given(LEAVES, st.binary(min_size=32, max_size=32))
def test_a_leaf_outside_the_tree_does_not_verify(leaves: list[bytes], stranger: bytes) -> None:
    tree = EvmMerkleTree(leaves)
    assert stranger in leaves or not verify(tree.root, stranger, tree.proof(0))


def test_a_tree_needs_leaves_of_32_bytes() -> None:
    with pytest.raises(EmptyTree):
        EvmMerkleTree([])
    with pytest.raises(ValueError, match="leaf 0 has 3 bytes"):
        EvmMerkleTree([b"abc"])
