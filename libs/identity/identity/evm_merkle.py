"""Keccak-256 Merkle trees with sorted pairs, as OpenZeppelin's MerkleProof verifies on chain.

The shape is that of OpenZeppelin's StandardMerkleTree: leaves sorted by hash, laid out as a complete binary
tree of 2n-1 nodes in one array whose first entry is the root and whose last entry is the smallest leaf.
Leaves are double hashes (see leaf.py), so that 64 bytes of an inner node can never be presented as a leaf.
"""

from __future__ import annotations

from collections.abc import Sequence

from identity.keccak import keccak256


class EmptyTree(ValueError):
    """A tree needs at least one leaf: an empty root would verify nothing and commit to nothing."""


class EvmMerkleTree:
    """A tree over 32-byte leaves; `proof(i)` speaks of leaves in the order in which they were given."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        if not leaves:
            raise EmptyTree("a Merkle tree needs at least one leaf")
        size = len(leaves)
        order = sorted(range(size), key=leaves.__getitem__)
        nodes: list[bytes] = [b""] * (2 * size - 1)
        self._position = [0] * size
        for rank, index in enumerate(order):
            if len(leaves[index]) != 32:
                raise ValueError(f"leaf {index} has {len(leaves[index])} bytes, not 32")
            nodes[-1 - rank] = leaves[index]
            self._position[index] = 2 * size - 2 - rank
        for parent in range(size - 2, -1, -1):
            nodes[parent] = hash_pair(nodes[2 * parent + 1], nodes[2 * parent + 2])
        self._nodes = nodes

    @property
    def root(self) -> bytes:
        """The 32-byte root."""
        return self._nodes[0]

    def __len__(self) -> int:
        return len(self._position)

    def leaf(self, index: int) -> bytes:
        """The leaf given at `index`."""
        return self._nodes[self._position[index]]

    def proof(self, index: int) -> list[bytes]:
        """The sibling hashes from the leaf given at `index` (from 0) to the root. Raises IndexError."""
        if not 0 <= index < len(self):
            raise IndexError(f"leaf {index} of a tree of {len(self)}")
        node = self._position[index]
        path: list[bytes] = []
        while node:
            path.append(self._nodes[node + 1 if node & 1 else node - 1])
            node = (node - 1) // 2
        return path


def hash_pair(one: bytes, other: bytes) -> bytes:
    """keccak256 over two hashes, the smaller first: a proof then needs no left-or-right flags."""
    return keccak256(one + other if one < other else other + one)


def verify(root: bytes, leaf: bytes, proof: Sequence[bytes]) -> bool:
    """Whether a proof leads from a leaf to a root, exactly as MerkleProof.verify decides on chain."""
    node = leaf
    for sibling in proof:
        node = hash_pair(node, sibling)
    return node == root
