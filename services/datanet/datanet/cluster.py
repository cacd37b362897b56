"""Near-duplicates: which records say the same thing in almost the same words.

Two records are near-duplicates when the Jaccard similarity of their shingles (runs of one and of two words)
reaches a threshold. MinHash with locality-sensitive hashing (Broder 1997; Leskovec et al., Mining of Massive
Datasets, chapter 3) proposes pairs, each pair is verified exactly, and clusters are the connected components.
Nothing here depends on the order in which records are given, on the machine or on the process: hashes are
SHA-1 and the permutations have a fixed seed.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from datasketch import MinHash, MinHashLSH

PERMUTATIONS = 128
SEED = 1
CANDIDATE_MARGIN = 0.3
"""Pairs are proposed from this far below the threshold on. At the default threshold that is 32 bands of 4 hashes,
which miss (1 - 0.7^4)^32 = 0.02% of the pairs that just reach it."""

_WORD = re.compile(r"\w+")

Shingles = frozenset[str]


@dataclass(frozen=True)
class Document:
    """What clustering needs to know of a record."""

    digest: str
    order: int
    """Place in the Datanet's order of acceptance: the earliest member names its cluster."""
    text: str


def cluster(documents: Iterable[Document], threshold: float) -> dict[str, str]:
    """{record digest: digest of its cluster's earliest member}, for every document.

    A record without a near-duplicate is a cluster of its own. Digests must be distinct.
    """
    ordered = sorted(documents, key=lambda document: (document.order, document.digest))
    shingles = [shingle(document.text) for document in ordered]
    # A root is always the earliest of its component: the larger index is hung below the smaller.
    parents = list(range(len(ordered)))
    for left, right in _candidates(shingles, threshold):
        left_root, right_root = _root(parents, left), _root(parents, right)
        if left_root != right_root and jaccard(shingles[left], shingles[right]) >= threshold:
            parents[max(left_root, right_root)] = min(left_root, right_root)
    return {document.digest: ordered[_root(parents, index)].digest for index, document in enumerate(ordered)}


def shingle(text: str) -> Shingles:
    """Runs of one and of two words, in lower case and without punctuation.

    Pairs carry the order; single words keep one changed word of a short sentence from costing a third of the
    similarity, as it would with longer runs alone.
    """
    words = _WORD.findall(text.lower())
    pairs = (f"{first} {second}" for first, second in itertools.pairwise(words))
    return frozenset(words) | frozenset(pairs)


def jaccard(left: Shingles, right: Shingles) -> float:
    """|intersection| / |union|; 0 for two empty sets: texts without words are not copies of each other."""
    shared = len(left & right)
    union = len(left) + len(right) - shared
    return shared / union if union else 0.0


def _candidates(shingles: Sequence[Shingles], threshold: float) -> Iterator[tuple[int, int]]:
    """Pairs (earlier, later) that may reach the threshold; most pairs that do, few that do not."""
    lsh = MinHashLSH(threshold=max(0.1, threshold - CANDIDATE_MARGIN), num_perm=PERMUTATIONS)
    empty = MinHash(num_perm=PERMUTATIONS, seed=SEED)
    for index, each in enumerate(shingles):
        # Sharing the permutations is what makes a signature cheap: drawing them costs more than hashing.
        signature = MinHash(num_perm=PERMUTATIONS, seed=SEED, permutations=empty.permutations)
        signature.update_batch([word.encode() for word in each])
        yield from ((other, index) for other in lsh.query(signature))
        lsh.insert(index, signature)


def _root(parents: list[int], index: int) -> int:
    while parents[index] != index:
        parents[index] = parents[parents[index]]
        index = parents[index]
    return index
