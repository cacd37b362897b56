"""Base models with adapters, loaded on first use and kept while they are used.

A few bases are in memory, each with a few of its adapters; the least recently used are dropped. With one lock, the thread
that builds indexes and the one that scores answers take turns, batch by batch.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cachetools import LRUCache
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from attribution.gradients import Example, PerExampleGradients
from attribution.projection import FloatArray, Layout, ProjectionSpec
from identity.digest import digest_hex
from modelkit import base_model
from modelkit.weights import adapter, loading
from modelkit.weights.compute import Compute
from servicekit.objects import ObjectStore


class _Adapters(LRUCache[str, PerExampleGradients]):
    """The adapters on one base, by digest. Dropping one removes its hooks and its weights."""

    def __init__(self, base: _Base, maxsize: int) -> None:
        super().__init__(maxsize=maxsize)
        self._base = base

    def popitem(self) -> tuple[str, PerExampleGradients]:
        """Drops the least recently used adapter."""
        digest, gradients = super().popitem()
        gradients.close()
        self._base.adapted.delete_adapter(digest_hex(digest))
        return digest, gradients


class _Base:
    """A loaded base with its adapters."""

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, adapters_kept: int) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.adapted: Any = None
        self.gradients = _Adapters(self, adapters_kept)


class AdapterModels:
    """Computes gradients of any adapter on any base, by their digests. Safe for several threads."""

    def __init__(
        self,
        *,
        store: ObjectStore,
        cache_dir: Path,
        compute: Compute,
        projection: ProjectionSpec,
        adapters_kept: int = 4,
        bases_kept: int = 1,
    ) -> None:
        self._store = store
        self._cache_dir = cache_dir
        self._compute = compute
        self._projection = projection
        self._adapters_kept = adapters_kept
        self._bases: LRUCache[str, _Base] = LRUCache(maxsize=bases_kept)
        self._lock = threading.Lock()

    @property
    def compute(self) -> dict[str, object]:
        """Returns the device and number type, on which gradients depend."""
        return {"device": self._compute.device, "dtype": self._compute.dtype}

    def tokenizer(self, base_digest: str) -> PreTrainedTokenizerBase:
        """Returns the base's tokenizer. Raises NotFound or InvalidBaseModel."""
        with self._lock:
            return self._open_base(base_digest).tokenizer

    def vocabulary(self, base_digest: str) -> int:
        """Returns the size of the base's vocabulary."""
        with self._lock:
            return int(self._open_base(base_digest).model.config.vocab_size)

    def layout(self, base_digest: str, adapter_digest: str) -> Layout:
        """Returns the layout of this adapter's projected gradients. Raises as `gradients`."""
        with self._lock:
            return self._open(base_digest, adapter_digest).layout

    def gradients(self, base_digest: str, adapter_digest: str, examples: Sequence[Example]) -> FloatArray:
        """Returns projected gradients [batch, layout.size]. Raises NotFound, InvalidBaseModel or InvalidAdapter."""
        with self._lock:
            rows, _ = self._open(base_digest, adapter_digest)(examples)
            return rows

    def log_likelihoods(self, base_digest: str, adapter_digest: str, example: Example) -> tuple[float, float]:
        """Returns the completion's log-likelihood in nats, summed over its tokens: with the adapter, and without. Raises as
        `gradients`."""
        with self._lock:
            gradients = self._open(base_digest, adapter_digest)
            tuned = gradients.loss(example)
            with self._bases[base_digest].adapted.disable_adapter():
                base = gradients.loss(example)
            self._bases[base_digest].adapted.requires_grad_(False)
            return -tuned, -base

    def _open(self, base_digest: str, adapter_digest: str) -> PerExampleGradients:
        base = self._open_base(base_digest)
        name = digest_hex(adapter_digest)
        if adapter_digest not in base.gradients:
            folder = adapter.fetch(adapter_digest, self._store, self._cache_dir / "adapters", base_digest)
            self._add(base, name, folder)
            base.gradients[adapter_digest] = PerExampleGradients(base.adapted, self._projection, name)
        found = base.gradients[adapter_digest]
        base.adapted.set_adapter(name)
        base.adapted.requires_grad_(False)  # set_adapter turns the weights' own gradients on
        return found

    def _open_base(self, digest: str) -> _Base:
        if digest not in self._bases:
            while len(self._bases) >= self._bases.maxsize:
                self._bases.popitem()  # before the next one is loaded: both may not fit into memory
                gc.collect()  # a model and its hooks refer to each other
            folder = base_model.materialise(digest, self._store, self._cache_dir / "bases")
            self._bases[digest] = _Base(*loading.load(folder, self._compute), self._adapters_kept)
        return self._bases[digest]

    def _add(self, base: _Base, name: str, folder: Path) -> None:
        if base.adapted is None:
            base.adapted = PeftModel.from_pretrained(base.model, str(folder), adapter_name=name)
        else:
            base.adapted.load_adapter(str(folder), adapter_name=name)
        base.adapted.eval()
