"""The base model this process runs: found, unpacked and loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from identity.names import BaseModelName
from modelkit import base_model
from modelkit.weights import loading
from modelkit.weights.compute import Compute, measure
from modelkit.weights.gguf_import import SMOLLM2_NAME, import_gguf, smollm2_gguf
from modelkit.weights.tiny import NAME as TINY_NAME
from modelkit.weights.tiny import create_tiny
from servicekit.errors import NotFound, StartupError
from servicekit.objects import ObjectStore


@dataclass(frozen=True, kw_only=True)
class Base:
    """A loaded base model."""

    name: str
    """`baseModels/{id}`."""
    digest: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    compute: Compute

    @property
    def max_context_tokens(self) -> int:
        """What the model's positions were built for."""
        return int(self.model.config.max_position_embeddings)

    @property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end an answer, as tokenizer, configuration and generation configuration name them."""
        named: list[object] = [self.tokenizer.eos_token_id]
        for config in (self.model.config, self.model.generation_config):
            eos = getattr(config, "eos_token_id", None)
            named += eos if isinstance(eos, list) else [eos]
        return frozenset(token for token in named if isinstance(token, int))

    @property
    def compute_name(self) -> str:
        """Device and number type, as answer events carry it."""
        return f"{self.compute.device}/{self.compute.dtype}"


def load_base(requested: str, store: ObjectStore, cache: Path) -> Base:
    """Loads a packaged model by name, or any by its digest.

    Packaged ones are published to the object store first, which gives the same digest on every machine.
    Raises StartupError when there is no such model.
    """
    disable_progress_bar()  # type: ignore[no-untyped-call]  # standard error holds log lines only
    try:
        digest = _digest(requested, store, cache)
        manifest = base_model.read_manifest(digest, store)
    except (NotFound, FileNotFoundError, base_model.InvalidBaseModel) as error:
        raise StartupError(f"base model {requested}: {error}") from None
    compute = measure()
    model, tokenizer = loading.load(base_model.materialise(digest, store, cache), compute)
    return Base(
        name=str(BaseModelName(manifest.name)),
        digest=digest,
        model=model,
        tokenizer=tokenizer,
        compute=compute,
    )


def _digest(requested: str, store: ObjectStore, cache: Path) -> str:
    if requested == SMOLLM2_NAME:
        return import_gguf(smollm2_gguf(), store, cache)
    return create_tiny(store) if requested == TINY_NAME else requested
