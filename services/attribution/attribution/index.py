"""The index that answers of one model version are compared with, stored as objects by digest.

An index is a manifest object (canonical JSON) that lists files by digest: the rows, their projected gradients
and norms, the preconditioner's inverses, the suffix array with its text, and the tokens for the lexical
baseline. Its digest is the manifest's. Gradients are memory-mapped, so an index may be larger than memory.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from attribution.clusters import TRAINED, ClusterTable, IndexRow, Scores
from attribution.influence import Influence, influence
from attribution.lexical import LexicalIndex
from attribution.preconditioner import BlockPreconditioner
from attribution.projection import FloatArray, Layout, ProjectionSpec
from attribution.spans import SuffixIndex
from identity.digest import canonical_json
from servicekit.objects import ObjectStore

KIND = "attribution-index"
VERSION = 1
METHOD = "lora-gradient-cosine/1"

_ARRAYS = ("gradients", "squared_norms", "inverses", "suffixes", "tokens", "token_counts")
_OTHERS = ("rows", "payout_addresses", "text")


class InvalidIndex(ValueError):
    """The object is not an attribution index of a supported version."""


@dataclass(frozen=True)
class IndexParameters:
    """The parameters that determine an index, together with the model and its training manifest."""

    projection: ProjectionSpec
    damping: float = 0.1
    """Fraction of each block's mean eigenvalue that is added to its diagonal."""

    def to_json(self) -> dict[str, object]:
        """Returns a JSON object with the same fields."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class IndexManifest:
    """The manifest object's content."""

    base_digest: str
    adapter_digest: str
    training_manifest_digest: str
    parameters: IndexParameters
    compute: Mapping[str, object]
    """Device and number type that the gradients were computed with: a query must use the same."""
    layout: Layout
    files: Mapping[str, str]

    def to_bytes(self) -> bytes:
        """Returns the canonical JSON whose digest names the index."""
        return canonical_json(
            {
                "kind": KIND,
                "version": VERSION,
                "method": METHOD,
                "base_digest": self.base_digest,
                "adapter_digest": self.adapter_digest,
                "training_manifest_digest": self.training_manifest_digest,
                "parameters": self.parameters.to_json(),
                "compute": dict(self.compute),
                "layout": self.layout.to_json(),
                "files": dict(self.files),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> IndexManifest:
        """Returns the manifest of an object's bytes. Raises InvalidIndex."""
        try:
            content: Any = json.loads(data)
            if (content["kind"], content["version"]) != (KIND, VERSION):
                raise InvalidIndex(f"not an {KIND} of version {VERSION}")
            parameters = content["parameters"]
            return cls(
                base_digest=content["base_digest"],
                adapter_digest=content["adapter_digest"],
                training_manifest_digest=content["training_manifest_digest"],
                parameters=IndexParameters(ProjectionSpec(**parameters["projection"]), parameters["damping"]),
                compute=content["compute"],
                layout=Layout.from_json(content["layout"]),
                files=content["files"],
            )
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidIndex(f"not an attribution index: {error}") from error


@dataclass(frozen=True, kw_only=True)
class AttributionIndex:
    """A loaded index. Arrays by row are in the order of `rows`."""

    manifest: IndexManifest
    rows: tuple[IndexRow, ...]
    gradients: FloatArray
    """[rows, layout.size]"""
    squared_norms: Scores
    """[halves, rows], in the preconditioned metric"""
    preconditioner: BlockPreconditioner
    suffixes: SuffixIndex
    """Of the trained rows' texts, in their order."""
    tokens: tuple[npt.NDArray[np.int32], ...]
    payout_addresses: Mapping[str, str]
    """By contributor, from the snapshots' manifests."""

    @cached_property
    def table(self) -> ClusterTable:
        return ClusterTable.of(self.rows)

    @cached_property
    def lexical(self) -> LexicalIndex:
        return LexicalIndex(self.tokens)

    @cached_property
    def trained_rows(self) -> tuple[IndexRow, ...]:
        """Returns the rows whose texts are the documents of the suffix array."""
        return tuple(row for row in self.rows if row.split == TRAINED)

    def influence(self, query: FloatArray) -> Influence:
        """Returns the influence of every row on a query gradient [layout.size]."""
        return influence(query, self.gradients, self.squared_norms, self.preconditioner)

    def save(self, store: ObjectStore) -> str:
        """Stores the files, then the manifest that lists them. Returns the index's digest."""
        arrays: dict[str, Any] = {
            "gradients": self.gradients,
            "squared_norms": self.squared_norms,
            "inverses": self.preconditioner.inverses,
            "suffixes": self.suffixes.suffixes,
            "tokens": np.concatenate([*self.tokens, np.zeros(0, dtype=np.int32)]),
            "token_counts": np.array([len(tokens) for tokens in self.tokens], dtype=np.int32),
        }
        files = {
            "rows": store.put_bytes(canonical_json([asdict(row) for row in self.rows])),
            "payout_addresses": store.put_bytes(canonical_json(dict(self.payout_addresses))),
            "text": store.put_bytes(self.suffixes.text),
        }
        with tempfile.TemporaryDirectory() as folder:
            for name, array in arrays.items():
                path = Path(folder) / name
                with path.open("wb") as file:
                    np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
                files[name] = store.put_file(path)
                path.unlink()
        return store.put_bytes(replace(self.manifest, files=files).to_bytes())


def load(digest: str, store: ObjectStore) -> AttributionIndex:
    """Returns an index, with each file verified. Raises NotFound, CorruptObject or InvalidIndex."""
    manifest = IndexManifest.from_bytes(store.get_bytes(digest))
    if missing := {*_ARRAYS, *_OTHERS} - set(manifest.files):
        raise InvalidIndex(f"index {digest} lacks {', '.join(sorted(missing))}")
    arrays = {
        name: np.load(store.local_path(manifest.files[name]), mmap_mode="r", allow_pickle=False)
        for name in _ARRAYS
    }
    rows = tuple(IndexRow(**row) for row in json.loads(store.get_bytes(manifest.files["rows"])))
    if arrays["gradients"].shape != (len(rows), manifest.layout.size):
        raise InvalidIndex(f"index {digest} has {len(rows)} rows and gradients {arrays['gradients'].shape}")
    return AttributionIndex(
        manifest=manifest,
        rows=rows,
        gradients=arrays["gradients"],
        squared_norms=arrays["squared_norms"],
        preconditioner=BlockPreconditioner(manifest.layout, arrays["inverses"]),
        suffixes=SuffixIndex(store.get_bytes(manifest.files["text"]), arrays["suffixes"]),
        tokens=split_tokens(arrays["tokens"], arrays["token_counts"]),
        payout_addresses=json.loads(store.get_bytes(manifest.files["payout_addresses"])),
    )


def split_tokens(tokens: npt.NDArray[np.int32], counts: Sequence[int]) -> tuple[npt.NDArray[np.int32], ...]:
    """Documents' tokens out of one array."""
    return tuple(np.split(tokens, np.cumsum(counts)[:-1])) if len(counts) else ()
