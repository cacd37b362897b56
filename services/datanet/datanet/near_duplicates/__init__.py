"""Finds near-duplicates: records that say the same thing in almost the same words.

Two records are near-duplicates when the Jaccard similarity of their shingles (runs of one and of two words)
reaches a threshold. Texts are compared folded (`identity.folding`): a copy in another case, in look-alike letters or with
characters that are not shown is the same text. So is one that differs only in what separates letters.
MinHash with locality-sensitive hashing (Broder 1997; Leskovec et al.,
Mining of Massive Datasets, chapter 3) proposes pairs, each pair is verified exactly, and clusters are the connected components.

Shingles, signatures and sketches are in files, and the steps go through them in chunks: memory grows by about 120 bytes a
record, whatever its length. The result depends on neither the order of the input nor the machine nor the process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from datanet.near_duplicates.clusters import find_clusters
from datanet.near_duplicates.sketches import write_sketches

VERSION = 3

__all__ = ["VERSION", "Document", "cluster", "find_clusters", "write_sketches"]


@dataclass(frozen=True)
class Document:
    """The parts of a record that clustering needs."""

    digest: str
    order: int
    """Position in the Datanet's order of arrival: the earliest member names its cluster."""
    text: str


def cluster(documents: Iterable[Document], threshold: float) -> dict[str, str]:
    """Returns {record digest: digest of its cluster's earliest member} for every document, of a set that fits in memory.

    A record without a near-duplicate forms its own cluster. Digests must be distinct.
    """
    ordered = sorted(documents, key=lambda document: (document.order, document.digest))
    with tempfile.TemporaryDirectory() as folder:
        write_sketches((document.text for document in ordered), Path(folder))
        roots = find_clusters(Path(folder), threshold, lambda done, total: None)
    return {document.digest: ordered[int(root)].digest for document, root in zip(ordered, roots, strict=True)}
