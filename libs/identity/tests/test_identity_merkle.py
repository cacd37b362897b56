"""RFC 6962 trees: published roots, and proofs that verify exactly where they should."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from identity import merkle

# The eight inputs and roots of the certificate-transparency reference tests.
INPUTS = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = {
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


def recursive_root(leaves: list[bytes]) -> bytes:
    """The definition in RFC 6962, section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\x01" + recursive_root(leaves[:split]) + recursive_root(leaves[split:])).digest()


def test_roots_are_those_of_the_reference_tests() -> None:
    for size, expected in ROOTS.items():
        assert merkle.root(INPUTS[:size]).hex() == expected


@given(st.lists(st.binary(max_size=8), max_size=40))
def test_streamed_root_is_the_recursive_definition(leaves: list[bytes]) -> None:
    assert merkle.root(iter(leaves)) == recursive_root(leaves)


@given(st.integers(1, 70), st.data())
def test_every_leaf_verifies_at_its_index_and_nowhere_else(size: int, data: st.DataObject) -> None:
    leaves = [bytes([i]) for i in range(size)]
    index = data.draw(st.integers(0, size - 1))
    root, path = merkle.root(leaves), merkle.proof(leaves, index)
    assert merkle.verify(root, leaves[index], path, index, size)
    for other in range(size):
        assert other == index or not merkle.verify(root, leaves[index], path, other, size)


@given(st.integers(2, 70), st.data())
def test_a_changed_leaf_or_proof_or_length_fails(size: int, data: st.DataObject) -> None:
    leaves = [bytes([i]) for i in range(size)]
    index = data.draw(st.integers(0, size - 1))
    root, path = merkle.root(leaves), merkle.proof(leaves, index)
    broken = list(path)
    broken[data.draw(st.integers(0, len(path) - 1))] = bytes(32)
    assert not merkle.verify(root, b"other", path, index, size)
    assert not merkle.verify(root, leaves[index], broken, index, size)
    assert not merkle.verify(root, leaves[index], path[:-1], index, size)
    assert not merkle.verify(root, leaves[index], [*path, bytes(32)], index, size)
