"""Base models with adapters on them, loaded when first asked for and kept while they are used.

One base is in memory at a time, with a few of its adapters; asked for another base, the first is let go.
Everything here belongs to one thread, the worker's.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from attribution.gradients import Example, PerExampleGradients
from attribution.projection import FloatArray, ProjectionSpec
from identity.digest import digest_hex
from modelkit import adapter, base_model
from modelkit.compute import Compute
from servicekit.objects import ObjectStore


@dataclass
class _Base:
    digest: str
    model: Any
    tokenizer: PreTrainedTokenizerBase
    adapted: Any = None


class AdapterModels:
    """Gradients of any adapter by digest. `adapters_kept` is how many stay on the base, least recently used
    first to go."""

    def __init__(self, store: ObjectStore, cache_dir: Path, compute: Compute, projection: ProjectionSpec,
                 adapters_kept: int = 4) -> None:
        self._store = store
        self._cache_dir = cache_dir
        self._compute = compute
        self._projection = projection
        self._adapters_kept = adapters_kept
        self._base: _Base | None = None
        self._gradients: OrderedDict[str, PerExampleGradients] = OrderedDict()

    @property
    def compute(self) -> dict[str, object]:
        """What gradients depend on: device and number type; the speed that was measured is left out."""
        return {"device": self._compute.device, "dtype": self._compute.dtype}

    def tokenizer(self, base_digest: str) -> PreTrainedTokenizerBase:
        """The base's tokenizer. Raises NotFound or InvalidBaseModel."""
        return self._open_base(base_digest).tokenizer

    def gradients(self, base_digest: str, adapter_digest: str) -> PerExampleGradients:
        """For this adapter, until the next call. Raises NotFound, InvalidBaseModel or InvalidAdapter."""
        base = self._open_base(base_digest)
        name = digest_hex(adapter_digest)
        if adapter_digest not in self._gradients:
            folder = adapter.fetch(adapter_digest, self._store, self._cache_dir / "adapters", base_digest)
            self._add(base, name, folder)
            self._gradients[adapter_digest] = PerExampleGradients(base.adapted, self._projection, name)
            self._drop_oldest(base)
        self._gradients.move_to_end(adapter_digest)
        base.adapted.set_adapter(name)
        base.adapted.requires_grad_(False)  # set_adapter turns the weights' own gradients on
        return self._gradients[adapter_digest]

    def query(self, base_digest: str, adapter_digest: str, example: Example) -> FloatArray:
        """The projected gradient [size] of one answer's loss."""
        (row,), _ = self.gradients(base_digest, adapter_digest)([example])
        return np.asarray(row)

    def _open_base(self, digest: str) -> _Base:
        if self._base is None or self._base.digest != digest:
            self._gradients.clear()
            self._base = None  # the old one must be gone before the new one is loaded: both may not fit
            folder = base_model.materialise(digest, self._store, self._cache_dir / "bases")
            model, tokenizer = base_model.load(folder, self._compute)
            self._base = _Base(digest, model, tokenizer)
        return self._base

    def _add(self, base: _Base, name: str, folder: Path) -> None:
        if base.adapted is None:
            base.adapted = PeftModel.from_pretrained(base.model, str(folder), adapter_name=name)
        else:
            base.adapted.load_adapter(str(folder), adapter_name=name)
        base.adapted.eval()

    def _drop_oldest(self, base: _Base) -> None:
        while len(self._gradients) > self._adapters_kept:
            digest, gradients = self._gradients.popitem(last=False)
            gradients.close()
            base.adapted.delete_adapter(digest_hex(digest))

