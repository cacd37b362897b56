"""The two models of an evaluation, of which one is ready at a time: the base, or the base as the adapter makes it."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetune.evaluation.adapted import adapted
from modelkit.base_model import materialise
from modelkit.weights import adapter as adapters
from modelkit.weights.compute import Compute
from modelkit.weights.loading import load
from servicekit.objects import ObjectStore
from trainer.contract.evaluation import EvaluationJob
from trainer.contract.progress import ProgressWriter

_SMALL_MODEL = 5_000_000
"""Parameters. Below, a second thread waits longer than it works."""


class Models:
    """Loads nothing before a model is asked for, and keeps the one that was asked for last."""

    def __init__(
        self, job: EvaluationJob, store: ObjectStore, progress: ProgressWriter, compute: Compute
    ) -> None:
        self._job, self._store, self._progress, self._compute = job, store, progress, compute
        self._loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None
        self._adapter: adapters.Adapter | None = None
        self._tuning = ExitStack()
        self._tuned = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tuning.close()

    @property
    def tuned_is_ready(self) -> bool:
        """Whether the tuned model was asked for last: to go on with it costs nothing."""
        return self._tuned

    def get(self, *, tuned: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Returns the model, which holds until the next call, and its tokenizer. Raises InvalidAdapter, NotFound."""
        if self._loaded is None:
            self._loaded = self._load()
        model, tokenizer = self._loaded
        if tuned != self._tuned:
            self._tuning.close()
            if tuned:
                self._tuning.enter_context(adapted(model, self._read_adapter()))
            self._tuned = tuned
        return model, tokenizer

    def _load(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        self._progress.report("loading the base model", 0, 1, "model")
        folder = materialise(self._job.base_digest, self._store, Path(self._job.cache_dir) / "models")
        model, tokenizer = load(folder, self._compute)
        # Set explicitly, because Ray's environment limits a job's process to one.
        small = model.num_parameters() < _SMALL_MODEL
        torch.set_num_threads(self._job.threads or (1 if small else len(os.sched_getaffinity(0))))
        self._progress.report("loading the base model", 1, 1, "model")
        return model, tokenizer

    def _read_adapter(self) -> adapters.Adapter:
        if self._adapter is None:
            folder = Path(self._job.cache_dir) / "adapters"
            self._adapter = adapters.read(
                adapters.fetch(self._job.adapter_digest, self._store, folder, self._job.base_digest)
            )
        return self._adapter
