"""A training run from its job file to a published adapter: what every Ray Train worker executes.

It can be killed at any point and run again in the same folder: replay and checkpoint are taken up, the
schedule is the same, and publishing by digest twice changes nothing.
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

from identity.digest import digest_json
from modelkit import adapter, base_model
from modelkit.compute import Compute, measure
from modelkit.prompt import PromptTemplate
from modelkit.training_manifest import ManifestReplay, ManifestSnapshot, TrainingManifest
from servicekit import crash
from servicekit.objects import ObjectStore
from trainer.jobs.files import RESULT_FILE, TrainingJob, TrainingResult, write_json
from trainer.progress import ProgressWriter
from trainer.spec import TrainingSpec
from trainer.training import checkpoint, replay
from trainer.training.divergence import task_divergence
from trainer.training.examples import Example, SnapshotSource, load_examples, schedule
from trainer.training.replay import Replay
from trainer.training.steps import StepMetrics, Stepper
from trainer.training.workers import Worker

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
        checkpoint.discard(folder)  # who wrote the result may have died on the next line
        return result
    job = TrainingJob.read(folder)
    spec = TrainingSpec.from_json(job.spec)
    run = _Run(folder, job, spec, worker, compute or measure(), checkpoint_every_s)
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
                s.name,
                s.root,
                s.records_digest,
                s.manifest_digest,
                s.weight,
                PromptTemplate(s.prompt, s.completion),
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
        model, tokenizer = base_model.load(base_folder, self._compute)
        _use_threads(model, self._worker.beside)
        self._compute = replace(self._compute, threads=torch.get_num_threads())
        examples = load_examples(self._sources, tokenizer, self._store, self._spec.max_tokens)
        self._seconds["load"], begun = time.monotonic() - begun, time.monotonic()
        replayed = self._replay(model, tokenizer)
        self._seconds["replay"], begun = time.monotonic() - begun, time.monotonic()
        tuned = self._attach(model)
        batches = schedule(
            [len(example.tokens) for example in examples],
            [self._sources[example.snapshot].weight for example in examples],
            self._spec.steps,
            self._spec.batch_size,
            self._spec.seed,
        )
        self._walk(tuned, tokenizer, examples, batches, replayed)
        self._seconds["train"] = time.monotonic() - begun
        if not self._worker.leads:
            return None
        moved = task_divergence(
            tuned,
            [examples[index] for index in batches[0]],
            int(tokenizer.pad_token_id or 0),
            self._compute.device,
        )
        return self._publish(tuned, examples, batches, replayed, moved)

    def _replay(self, model: Any, tokenizer: PreTrainedTokenizerBase) -> Replay | None:
        """Samples replay, or takes it from the cache: the same base, numbers, seed and compute give the
        same."""
        if self._spec.replay.kind == "none":
            return None
        wanted = {
            "base": self._job.base_digest,
            "openers": list(replay.OPENERS),
            "seed": self._spec.seed,
            "sequences": self._spec.replay.sequences,
            "tokens_each": self._spec.replay.tokens_each,
            "device": self._compute.device,
            "dtype": self._compute.dtype,
            "torch": torch.__version__,
        }
        key = digest_json(wanted).removeprefix("sha256:")
        path = Path(self._job.cache_dir) / "replay" / f"{key}.safetensors"
        if self._worker.leads and not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            made = replay.sample(
                model,
                tokenizer,
                self._spec.replay,
                self._spec.seed,
                self._compute.device,
                lambda done, total: self._report("sampling replay", done, total, "token"),
            )
            replay.save(made, path)
        self._worker.wait()
        return replay.load(path)

    def _attach(self, model: Any) -> Any:
        """Plain LoRA: B is zero, so the tuned model begins as the base; A is drawn from the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._spec.seed)
            return get_peft_model(
                model,
                LoraConfig(
                    task_type="CAUSAL_LM",
                    r=self._spec.lora_rank,
                    lora_alpha=self._spec.lora_alpha,
                    lora_dropout=0.0,
                    bias="none",
                    target_modules=list(self._spec.target_modules),
                ),
            )

    def _walk(
        self,
        tuned: Any,
        tokenizer: PreTrainedTokenizerBase,
        examples: Sequence[Example],
        batches: Sequence[Sequence[int]],
        replayed: Replay | None,
    ) -> None:
        stepper = Stepper(
            tuned,
            self._spec,
            examples,
            replayed,
            int(tokenizer.pad_token_id or 0),
            self._compute,
            self._worker,
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

        def done(metrics: StepMetrics) -> None:
            self._newest = metrics
            self._tokens += metrics.tokens
            self._report("training", metrics.step, self._spec.steps, "step", _numbers(metrics))
            if self._worker.leads and time.monotonic() - self._last_checkpoint > self._checkpoint_every_s:
                checkpoint.save(
                    self._folder,
                    checkpoint.Checkpoint(
                        metrics.step,
                        get_peft_model_state_dict(tuned),
                        stepper.optimiser.state_dict(),
                        identity,
                    ),
                )
                self._last_checkpoint = time.monotonic()

        self._report("training", saved.step if saved else 0, self._spec.steps, "step")
        stepper.run(batches, saved.step if saved else 0, done)

    def _publish(
        self,
        tuned: Any,
        examples: Sequence[Example],
        batches: Sequence[Sequence[int]],
        replayed: Replay | None,
        moved: float,
    ) -> TrainingResult:
        """Adapter, manifest, result file, in this order: whoever sees the result finds what it names."""
        self._report("publishing", 0, 0, "")
        with crash.step("adapter files"):
            tuned.save_pretrained(str(self._folder / "adapter"))
        adapter_digest = adapter.publish(self._folder / "adapter", self._job.base_digest, self._store)
        packages = {name: version(name) for name in _PACKAGES}
        manifest = TrainingManifest(
            self._job.base_digest,
            adapter_digest,
            self._seen(examples, batches),
            _replay_entry(self._spec, replayed),
            self._spec.to_json(),
            dict(self._job.origins),
            self._spec.steps,
            sum(example.truncated for example in examples),
            self._compute.to_json(),
            packages,
        )
        measured = {
            **{f"{phase}_s": round(seconds, 2) for phase, seconds in self._seconds.items()},
            "tokens": float(self._tokens),
            "task_kl": moved,
        }
        if self._newest is not None:
            measured |= {"final_loss": self._newest.loss, "final_kl": self._newest.kl}
        result = TrainingResult(
            adapter_digest,
            self._store.put_bytes(manifest.to_bytes()),
            f"{self._compute.device}/{self._compute.dtype}",
            packages,
            measured,
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
                source.name,
                source.root,
                source.records_digest,
                source.manifest_digest,
                source.weight,
                source.template.prompt,
                source.template.completion,
                source.template.digest,
                records,
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
    its threads would mostly wait for each other. Said by us, because Ray tells its processes to use one."""
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


def _replay_entry(spec: TrainingSpec, replayed: Replay | None) -> ManifestReplay:
    if replayed is None:
        return ManifestReplay("none", "", 0, 0)
    return ManifestReplay(
        spec.replay.kind, replayed.digest, replayed.tokens.shape[0], int(replayed.mask.sum())
    )
