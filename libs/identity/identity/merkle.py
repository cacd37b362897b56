"""SHA-256 Merkle trees in the shape of RFC 6962 (section 2.1), verified as RFC 9162 (section 2.1.3.2) says.

A leaf's hash is sha256(0x00 || bytes) and a node's is sha256(0x01 || left || right): without the two
prefixes a node could be passed off as a leaf. A tree of n leaves splits at the largest power of two below
n, so that its shape follows from n alone, and no leaf is ever duplicated to fill a level.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

EMPTY_ROOT = hashlib.sha256(b"").digest()
"""The root of a tree without leaves."""


def leaf_hash(leaf: bytes) -> bytes:
    """The 32-byte hash of a leaf's bytes."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The 32-byte hash of an inner node over its children's hashes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class RootOfHashes:
    """The root over leaves whose hashes are added one by one, in order. Holds one hash per level, never the leaves."""

    def __init__(self) -> None:
        # One complete subtree per set bit of the number of leaves so far, the largest first.
        self._subtrees: list[bytes] = []
        self._count = 0

    def add(self, node: bytes) -> None:
        """Adds the hash of the next leaf."""
        count = self._count
        while count & 1:
            node = node_hash(self._subtrees.pop(), node)
            count >>= 1
        self._subtrees.append(node)
        self._count += 1

    def root(self) -> bytes:
        """The 32-byte root over the leaves so far."""
        if not self._subtrees:
            return EMPTY_ROOT
        node = self._subtrees[-1]
        for subtree in reversed(self._subtrees[:-1]):
            node = node_hash(subtree, node)
        return node


def root(leaves: Iterable[bytes]) -> bytes:
    """The 32-byte root over leaves in order. Streams: holds one hash per level, never the leaves."""
    tree = RootOfHashes()
    for leaf in leaves:
        tree.add(leaf_hash(leaf))
    return tree.root()


def proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The sibling hashes from leaf `index` (from 0) up to the root. Raises IndexError outside the tree."""
    if not 0 <= index < len(leaves):
        raise IndexError(f"leaf {index} of a tree of {len(leaves)}")
    level = [leaf_hash(leaf) for leaf in leaves]
    path: list[bytes] = []
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        level = _parents(level)
        index >>= 1
    return path


def verify(root: bytes, leaf: bytes, proof: Sequence[bytes], index: int, size: int) -> bool:
    """Whether `leaf` stands at `index` in the tree of `size` leaves with this root."""
    if not 0 <= index < size:
        return False
    position, last = index, size - 1
    node = leaf_hash(leaf)
    for sibling in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            node = node_hash(sibling, node)
            # A right-most node without a sibling rises unchanged; the proof has no entry for those levels.
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            node = node_hash(node, sibling)
        position >>= 1
        last >>= 1
    return last == 0 and node == root


def _parents(level: list[bytes]) -> list[bytes]:
    above = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
    if len(level) & 1:
        above.append(level[-1])
    return above
