"""Base models with adapters on them, loaded when first asked for and kept while they are used.

A few bases are in memory, each with a few of its adapters; the least recently used goes first. One lock lets the
thread that builds indexes and the one that scores answers take turns, a batch at a time.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from attribution.gradients import Example, PerExampleGradients
from attribution.projection import FloatArray, Layout, ProjectionSpec
from identity.digest import digest_hex
from modelkit import adapter, base_model
from modelkit.compute import Compute
from servicekit.objects import ObjectStore


@dataclass
class _Base:
    model: Any
    tokenizer: PreTrainedTokenizerBase
    adapted: Any = None
    gradients: OrderedDict[str, PerExampleGradients] = field(default_factory=OrderedDict)
    """By adapter digest, least recently used first."""


class AdapterModels:
    """Gradients of any adapter on any base, by their digests; safe for several threads."""

    def __init__(
        self,
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
        self._bases_kept = bases_kept
        self._bases: OrderedDict[str, _Base] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def compute(self) -> dict[str, object]:
        """What gradients depend on: device and number type. The speed that chose them is left out."""
        return {"device": self._compute.device, "dtype": self._compute.dtype}

    def tokenizer(self, base_digest: str) -> PreTrainedTokenizerBase:
        """The base's tokenizer. Raises NotFound or InvalidBaseModel."""
        with self._lock:
            return self._open_base(base_digest).tokenizer

    def vocabulary(self, base_digest: str) -> int:
        """How many token ids the base knows."""
        with self._lock:
            return int(self._open_base(base_digest).model.config.vocab_size)

    def layout(self, base_digest: str, adapter_digest: str) -> Layout:
        """How this adapter's projected gradients are divided. Raises as `gradients`."""
        with self._lock:
            return self._open(base_digest, adapter_digest).layout

    def gradients(self, base_digest: str, adapter_digest: str, examples: Sequence[Example]) -> FloatArray:
        """Projected gradients [batch, layout.size]. Raises NotFound, InvalidBaseModel or InvalidAdapter."""
        with self._lock:
            rows, _ = self._open(base_digest, adapter_digest)(examples)
            return rows

    def log_likelihoods(self, base_digest: str, adapter_digest: str, example: Example) -> tuple[float, float]:
        """Of the completion in nats, summed over its tokens: with the adapter, and by the base alone. Raises as
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
            self._drop_adapters(base)
        base.gradients.move_to_end(adapter_digest)
        base.adapted.set_adapter(name)
        base.adapted.requires_grad_(False)  # set_adapter turns the weights' own gradients on
        return base.gradients[adapter_digest]

    def _open_base(self, digest: str) -> _Base:
        if digest not in self._bases:
            while len(self._bases) >= self._bases_kept:
                self._bases.popitem(last=False)  # gone before the next is loaded: both may not fit
            folder = base_model.materialise(digest, self._store, self._cache_dir / "bases")
            self._bases[digest] = _Base(*base_model.load(folder, self._compute))
        self._bases.move_to_end(digest)
        return self._bases[digest]

    def _add(self, base: _Base, name: str, folder: Path) -> None:
        if base.adapted is None:
            base.adapted = PeftModel.from_pretrained(base.model, str(folder), adapter_name=name)
        else:
            base.adapted.load_adapter(str(folder), adapter_name=name)
        base.adapted.eval()

    def _drop_adapters(self, base: _Base) -> None:
        while len(base.gradients) > self._adapters_kept:
            digest, gradients = base.gradients.popitem(last=False)
            gradients.close()
            base.adapted.delete_adapter(digest_hex(digest))
