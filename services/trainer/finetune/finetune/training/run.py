"""A training run from its job file to a published adapter: what every Ray Train worker executes.

It can be killed at any point and run again in the same folder: it resumes from rehearsal and checkpoint, the
schedule is the same, and publishing twice by digest changes nothing.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import PreTrainedTokenizerBase

from finetune.training import checkpoint, rehearsal
from finetune.training.divergence import task_divergence
from finetune.training.examples import Example, SnapshotSource, load_examples, schedule
from finetune.training.rehearsal import Rehearsal
from finetune.training.steps import NotFinite, StepMetrics, Stepper
from finetune.training.workers import Worker
from identity.digest import digest_json
from modelkit import base_model
from modelkit.prompt import PromptTemplate
from modelkit.training_manifest import ManifestRehearsal, ManifestSnapshot, TrainingManifest
from modelkit.weights import adapter, loading
from modelkit.weights.compute import Compute, measure
from servicekit import crash, private
from servicekit.objects import ObjectStore
from trainer.contract.files import LAST_FINITE_FILE, RESULT_FILE, TrainingJob, TrainingResult, write_json
from trainer.contract.progress import ProgressWriter
from trainer.contract.spec import TrainingSpec

CHECKPOINT_INTERVAL_S = 20.0
"""Most work that a kill can cost, beside what starting again takes."""

_SMALL_MODEL_PARAMETERS = 10_000_000

_PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "ray",
    "safetensors",
    "openledger-trainer",
    "openledger-modelkit",
)


def train(
    folder: Path,
    worker: Worker | None = None,
    compute: Compute | None = None,
    checkpoint_every_s: float = CHECKPOINT_INTERVAL_S,
) -> TrainingResult | None:
    """Runs `folder/job.json` to its end. Returns the result that the leading worker wrote; None on the
    others. A kill costs what was done since the last checkpoint, at most `checkpoint_every_s`.

    Raises what loading the base, the snapshots or the templates raises.
    """
    worker = worker or Worker()
    if (result := TrainingResult.read(folder)) is not None:
        if not worker.leads:
            return None
        checkpoint.discard(folder)  # the process that wrote the result may have ended on the next line
        return result
    job = TrainingJob.read(folder)
    spec = TrainingSpec.from_json(job.spec)
    run = _Run(
        folder,
        job,
        spec=spec,
        worker=worker,
        compute=compute or measure(None if spec.precision == "auto" else spec.precision),
        checkpoint_every_s=checkpoint_every_s,
    )
    try:
        return run.execute()
    finally:
        run.close()


class _Run:
    """The phases of a run, in order, with the time that each took."""

    def __init__(
        self,
        folder: Path,
        job: TrainingJob,
        *,
        spec: TrainingSpec,
        worker: Worker,
        compute: Compute,
        checkpoint_every_s: float,
    ) -> None:
        self._folder, self._job, self._spec, self._worker, self._compute = folder, job, spec, worker, compute
        self._checkpoint_every_s = checkpoint_every_s
        self._store = ObjectStore(job.object_store, cache=Path(job.cache_dir) / "objects")
        self._sources = [
            SnapshotSource(
                name=s.name,
                root=s.root,
                records_digest=s.records_digest,
                manifest_digest=s.manifest_digest,
                weight=s.weight,
                template=PromptTemplate(s.prompt, s.completion),
            )
            for s in job.snapshots
        ]
        self._progress = ProgressWriter(folder) if worker.leads else None
        self._seconds: dict[str, float] = {}
        self._last_checkpoint = time.monotonic()
        self._tokens = 0
        self._newest: StepMetrics | None = None

    def close(self) -> None:
        if self._progress is not None:
            self._progress.close()

    def execute(self) -> TrainingResult | None:
        begun = time.monotonic()
        self._report("loading", 0, 0, "")
        base_folder = base_model.materialise(
            self._job.base_digest, self._store, Path(self._job.cache_dir) / "models"
        )
        model, tokenizer = loading.load(base_folder, self._compute)
        _use_threads(model, self._worker.beside)
        self._compute = replace(self._compute, threads=torch.get_num_threads())
        examples = load_examples(self._sources, tokenizer, self._store, self._spec.max_tokens)
        self._seconds["load"], begun = time.monotonic() - begun, time.monotonic()
        rehearsed = self._rehearsal(model, tokenizer)
        self._seconds["rehearsal"], begun = time.monotonic() - begun, time.monotonic()
        tuned = self._attach(model)
        batches = schedule(
            [len(example.tokens) for example in examples],
            [self._sources[example.snapshot].weight for example in examples],
            self._spec.steps,
            self._spec.records_per_step,
            self._spec.seed,
        )
        self._train_loop(tuned, tokenizer, examples, batches, rehearsed)
        self._seconds["train"] = time.monotonic() - begun
        if not self._worker.leads:
            return None
        moved = task_divergence(
            tuned,
            [examples[index] for index in batches[0]],
            int(tokenizer.pad_token_id or 0),
            self._compute.device,
        )
        return self._publish(tuned, examples, batches, rehearsed, moved)

    def _rehearsal(self, model: Any, tokenizer: PreTrainedTokenizerBase) -> Rehearsal | None:
        """Samples rehearsal, or takes it from the cache: the same base, numbers, seed and compute give the
        same."""
        if self._spec.rehearsal.kind == "none":
            return None
        source = {
            "base": self._job.base_digest,
            "openers": list(rehearsal.OPENERS),
            "seed": self._spec.seed,
            "sequences": self._spec.rehearsal.sequences,
            "tokens_each": self._spec.rehearsal.tokens_each,
            "device": self._compute.device,
            "dtype": self._compute.dtype,
            "torch": torch.__version__,
        }
        key = digest_json(source).removeprefix("sha256:")
        path = Path(self._job.cache_dir) / "rehearsal" / f"{key}.safetensors"
        if self._worker.leads and not path.is_file():
            private.folder(path.parent)
            made = rehearsal.sample(
                model,
                tokenizer,
                self._spec.rehearsal,
                seed=self._spec.seed,
                device=self._compute.device,
                report=lambda done, total: self._report("sampling rehearsal", done, total, "token"),
            )
            rehearsal.save(made, path)
        self._worker.wait()  # waits: for all workers; when one dies, Ray ends the run
        return rehearsal.load(path)

    def _attach(self, model: Any) -> Any:
        """Plain LoRA: B is zero, so the tuned model begins as the base; A is drawn from the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._spec.seed)
            return get_peft_model(
                model,
                LoraConfig(
                    task_type="CAUSAL_LM",
                    r=self._spec.lora_rank,
                    lora_alpha=self._spec.plain_alpha,
                    lora_dropout=self._spec.lora_dropout,
                    bias="none",
                    target_modules=list(self._spec.target_modules),
                ),
            )

    def _train_loop(
        self,
        tuned: Any,
        tokenizer: PreTrainedTokenizerBase,
        examples: Sequence[Example],
        batches: Sequence[Sequence[int]],
        rehearsed: Rehearsal | None,
    ) -> None:
        stepper = Stepper(
            tuned,
            self._spec,
            examples=examples,
            rehearsal=rehearsed,
            pad_token=int(tokenizer.pad_token_id or 0),
            compute=self._compute,
            worker=self._worker,
        )
        identity = digest_json(
            {
                "spec": self._spec.to_json(),
                "base": self._job.base_digest,
                "records": [source.records_digest for source in self._sources],
            }
        )
        saved = checkpoint.load(self._folder, identity)
        if saved is not None:
            set_peft_model_state_dict(tuned, saved.adapter)
            stepper.optimiser.load_state_dict(saved.optimiser)

        def state(step: int) -> checkpoint.Checkpoint:
            return checkpoint.Checkpoint(
                step=step,
                adapter=get_peft_model_state_dict(tuned),
                optimiser=stepper.optimiser.state_dict(),
                identity=identity,
            )

        def done(metrics: StepMetrics) -> None:
            self._newest = metrics
            self._tokens += metrics.tokens
            self._report("training", metrics.step, self._spec.steps, "step", _numbers(metrics))
            if self._worker.leads and time.monotonic() - self._last_checkpoint > self._checkpoint_every_s:
                checkpoint.save(self._folder, state(metrics.step))
                self._last_checkpoint = time.monotonic()

        self._report("training", saved.step if saved else 0, self._spec.steps, "step")
        try:
            stepper.run(batches, saved.step if saved else 0, done)
        except NotFinite as error:
            if self._worker.leads:
                checkpoint.save(self._folder, state(error.step - 1), LAST_FINITE_FILE)
            raise

    def _publish(
        self,
        tuned: Any,
        examples: Sequence[Example],
        batches: Sequence[Sequence[int]],
        rehearsed: Rehearsal | None,
        moved: float,
    ) -> TrainingResult:
        """Adapter, manifest, result file, in this order: what a result names exists before the result."""
        self._report("publishing", 0, 0, "")
        with crash.step("adapter files"):
            tuned.save_pretrained(str(self._folder / "adapter"))
        adapter_digest = adapter.publish(self._folder / "adapter", self._job.base_digest, self._store)
        packages = {name: version(name) for name in _PACKAGES}
        manifest = TrainingManifest(
            base_digest=self._job.base_digest,
            adapter_digest=adapter_digest,
            snapshots=self._seen(examples, batches),
            rehearsal=_rehearsal_entry(self._spec, rehearsed),
            spec=self._spec.to_json(),
            origins=dict(self._job.origins),
            steps=self._spec.steps,
            truncated_records=sum(example.truncated for example in examples),
            compute=self._compute.to_json(),
            packages=packages,
        )
        measured = {
            **{f"{phase}_s": round(seconds, 2) for phase, seconds in self._seconds.items()},
            "tokens": float(self._tokens),
            "task_kl": moved,
        }
        if self._newest is not None:
            measured |= {"final_loss": self._newest.loss, "final_kl": self._newest.kl}
        result = TrainingResult(
            adapter_digest=adapter_digest,
            training_manifest_digest=self._store.put_bytes(manifest.to_bytes()),
            compute=f"{self._compute.device}/{self._compute.dtype}",
            packages=packages,
            measurements=measured,
        )
        write_json(self._folder / RESULT_FILE, result)
        checkpoint.discard(self._folder)
        return result

    def _seen(
        self, examples: Sequence[Example], batches: Sequence[Sequence[int]]
    ) -> tuple[ManifestSnapshot, ...]:
        times = Counter(index for batch in batches for index in batch)
        counts: list[dict[str, int]] = [{} for _ in self._sources]
        for index, count in sorted(times.items()):
            example = examples[index]
            seen = counts[example.snapshot]
            seen[example.record_digest] = seen.get(example.record_digest, 0) + count
        return tuple(
            ManifestSnapshot(
                name=source.name,
                root=source.root,
                records_digest=source.records_digest,
                manifest_digest=source.manifest_digest,
                weight=source.weight,
                prompt=source.template.prompt,
                completion=source.template.completion,
                template_digest=source.template.digest,
                records=records,
            )
            for source, records in zip(self._sources, counts, strict=True)
        )

    def _report(
        self, stage: str, done: int, total: int, unit: str, metrics: Mapping[str, float] | None = None
    ) -> None:
        if self._progress is not None:
            self._progress.report(stage, done, total, unit, metrics)


def _use_threads(model: Any, beside: int) -> None:
    """All cores for a real model; one for a toy, whose operators are too short to share: on a busy machine
    its threads would mostly wait for each other. Set explicitly, because Ray limits its processes to one."""
    small = sum(parameter.numel() for parameter in model.parameters()) < _SMALL_MODEL_PARAMETERS
    torch.set_num_threads(1 if small else max(1, len(os.sched_getaffinity(0)) // beside))


def _numbers(metrics: StepMetrics) -> dict[str, float]:
    return {
        "step": metrics.step,
        "loss": round(metrics.loss, 5),
        "kl": round(metrics.kl, 6),
        "learning_rate": metrics.learning_rate,
        "gradient_norm": round(metrics.gradient_norm, 5),
        "tokens_per_s": round(metrics.tokens / metrics.seconds, 1),
    }


def _rehearsal_entry(spec: TrainingSpec, rehearsed: Rehearsal | None) -> ManifestRehearsal:
    if rehearsed is None:
        return ManifestRehearsal(kind="none", digest="", sequences=0, tokens=0)
    return ManifestRehearsal(
        kind=spec.rehearsal.kind,
        digest=rehearsed.digest,
        sequences=rehearsed.tokens.shape[0],
        tokens=int(rehearsed.mask.sum()),
    )
