"""Records indexed and answers scored a second, beside a plain loop of autograd over examples, in one run.

    python bench/attribution_bench.py [--model tiny|smollm2] [--records 64] [--tokens 35] [--looped 8]
        [--answers 16] [--contributors 8] [--repeats 3] [--json FILE]

The loop is what per-example gradients cost without hooks: one forward and one backward pass an example, with the same
projection afterwards. Both take the same examples of the same model; repeats of both are interleaved, so that a machine
that slows down slows both. Wall and processor time are shown, and the ratio of medians; largest difference of the two
results, relative to the largest value, says that they are the same thing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from attribution.clusters import CONTROL, TRAINED, ClusterTable, IndexRow
from attribution.gradients import Example, PerExampleGradients, batches_by_length
from attribution.influence import influence
from attribution.preconditioner import BlockPreconditioner
from attribution.projection import FloatArray, Layout, ProjectionSpec
from attribution.shares import ShareParameters, attribute
from modelkit import base_model
from modelkit.adapter import ALL_LINEAR
from modelkit.weights import compute, gguf_import, loading
from modelkit.weights.tiny import create_tiny
from servicekit.objects import ObjectStore

PROJECTION = ProjectionSpec()
COMPLETION_TOKENS = 5
BATCH_TOKENS = 1024


@dataclass(frozen=True)
class Timed:
    """Seconds of one repeat."""

    wall_s: float
    processor_s: float


def adapted_model(name: str, folder: Path) -> tuple[nn.Module, int]:
    """A base with an all-linear LoRA of rank 16 whose B is not zero, and its vocabulary's size."""
    store = ObjectStore(folder / "objects")
    digest = (
        create_tiny(store)
        if name == "tiny"
        else gguf_import.import_gguf(gguf_import.smollm2_gguf(), store, folder / "cache")
    )
    model, _ = loading.load(base_model.materialise(digest, store, folder / "bases"), compute.measure("fp32"))
    torch.manual_seed(0)
    config = LoraConfig(r=16, lora_alpha=32, target_modules=list(ALL_LINEAR), task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config)
    for parameter_name, parameter in adapted.named_parameters():
        if ".lora_B." in parameter_name:
            nn.init.normal_(parameter, std=0.02)
    return adapted.eval(), int(model.config.vocab_size)


def examples(count: int, tokens: int, vocabulary: int) -> list[Example]:
    """Random tokens, lengths within a third of `tokens`, as texts' lengths differ."""
    generator = np.random.default_rng(0)
    made = []
    for _ in range(count):
        length = max(COMPLETION_TOKENS + 2, int(generator.integers(tokens * 2 // 3, tokens * 4 // 3 + 1)))
        ids = tuple(int(token) for token in generator.integers(3, vocabulary, length))
        made.append(Example(ids[:-COMPLETION_TOKENS], ids[-COMPLETION_TOKENS:]))
    return made


def looped(model: nn.Module, made: list[Example], layout: Layout) -> FloatArray:
    """One example at a time: loss, autograd over the LoRA weights, projection of each matrix."""
    named = {n.removesuffix(".default.weight"): p for n, p in model.named_parameters() if ".lora_" in n}
    for parameter in named.values():
        parameter.requires_grad_(True)
    rows = np.empty((len(made), layout.size), dtype=np.float32)
    for row, example in enumerate(made):
        ids = torch.tensor([example.prompt_ids + example.completion_ids])
        logits = model(input_ids=ids, use_cache=False).logits[0, len(example.prompt_ids) - 1 : -1]
        loss = nn.functional.cross_entropy(logits, ids[0, len(example.prompt_ids) :], reduction="sum")
        gradients = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
        for block in layout:
            rows[row, block.span] = _project(gradients[block.name].numpy(), block.name, block.half).ravel()
    model.requires_grad_(False)
    return rows


def _project(gradient: FloatArray, name: str, half: int) -> FloatArray:
    long_input = name.endswith(".lora_A")
    outputs, inputs = gradient.shape
    widths = (PROJECTION.rank, PROJECTION.width) if long_input else (PROJECTION.width, PROJECTION.rank)
    left = PROJECTION.matrix(name, "out", size=outputs, width=widths[0], half=half)
    right = PROJECTION.matrix(name, "in", size=inputs, width=widths[1], half=half)
    return np.asarray(left @ gradient @ right.T, dtype=np.float32)


def batched(gradients: PerExampleGradients, made: list[Example]) -> FloatArray:
    """As the indexer does it."""
    rows = np.empty((len(made), gradients.layout.size), dtype=np.float32)
    for batch in batches_by_length([len(example) for example in made], BATCH_TOKENS):
        rows[batch], _ = gradients([made[place] for place in batch])
    return rows


def timed(work: Callable[[], Any]) -> tuple[Timed, Any]:
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    return Timed(time.perf_counter() - wall, time.process_time() - processor), result


class Scoring:
    """Everything after the gradient: influence, tests, shares and intervals against an index of `rows`."""

    def __init__(self, rows: FloatArray, gradients: PerExampleGradients, contributors: int) -> None:
        self.rows = rows
        self.preconditioner = BlockPreconditioner.fit(rows, gradients.layout, 0.1)
        self.norms = self.preconditioner.squared_norms(rows)
        names = [f"datanets/d/contributors/c{place % contributors}" for place in range(len(rows))]
        self.table = ClusterTable.of(
            [
                IndexRow(
                    record_digest=f"r{place}",
                    cluster=f"r{place}",
                    contributor=name,
                    credited=name,
                    split=CONTROL if place % 3 == 0 else TRAINED,
                    times_seen=1,
                )
                for place, name in enumerate(names)
            ]
        )

    def score_all(self, gradients: PerExampleGradients, queries: list[Example]) -> list[int]:
        """Each answer by itself, as they come in: its gradient and then its shares."""
        return [self.score(gradients([query])[0][0]) for query in queries]

    def score(self, query: FloatArray) -> int:
        found = influence(query, self.rows, self.norms, self.preconditioner)
        return attribute(
            self.table.trained_means(found.scores),
            self.table.owners,
            self.table.control_means(found.scores),
            contributors=len(self.table.contributors),
            parameters=ShareParameters(min_controls=2),
            generator=np.random.default_rng(0),
        ).unattributed_ppm


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        model, vocabulary = adapted_model(arguments.model, Path(folder))
    made = examples(arguments.records, arguments.tokens, vocabulary)
    loops: list[Timed] = []
    passes: list[Timed] = []
    scores: list[Timed] = []
    for _ in range(arguments.repeats):
        with PerExampleGradients(model, PROJECTION) as gradients:
            layout = gradients.layout
            batched(gradients, made[:2])  # the first pass pays for memory and kernels
            seconds, rows = timed(partial(batched, gradients, made))
            passes.append(seconds)
            scoring = Scoring(rows, gradients, arguments.contributors)
            seconds, _ = timed(partial(scoring.score_all, gradients, made[: arguments.answers]))
            scores.append(seconds)
        seconds, one = timed(partial(looped, model, made[: arguments.looped], layout))  # without hooks
        loops.append(seconds)
        difference = float(np.abs(rows[: len(one)] - one).max() / np.abs(one).max())
    return {
        "model": arguments.model,
        "threads": torch.get_num_threads(),
        "records": len(made),
        "mean_tokens": float(np.mean([len(example) for example in made])),
        "looped_records_per_s": _rates(loops, arguments.looped),
        "batched_records_per_s": _rates(passes, len(made)),
        "answers_per_s": _rates(scores, arguments.answers),
        "batched_over_looped": {
            clock: _median(loops, clock) / arguments.looped / (_median(passes, clock) / len(made))
            for clock in ("wall_s", "processor_s")
        },
        "largest_relative_difference": difference,
        "repeats": [[asdict(each) for each in kind] for kind in (loops, passes, scores)],
    }


def _median(times: list[Timed], clock: str) -> float:
    return median(float(getattr(each, clock)) for each in times)


def _rates(times: list[Timed], count: int) -> dict[str, float]:
    return {clock: count / _median(times, clock) for clock in ("wall_s", "processor_s")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", choices=("tiny", "smollm2"), default="smollm2")
    for name, default in (
        ("records", 64),
        ("tokens", 35),
        ("looped", 8),
        ("answers", 16),
        ("contributors", 8),
        ("repeats", 3),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a quick check, not a measurement: the tiny model, few records",
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.model, arguments.records, arguments.looped, arguments.answers, arguments.repeats = (
            "tiny",
            16,
            4,
            4,
            2,
        )
    found = run(arguments)
    for key, value in found.items():
        if isinstance(value, dict):
            text = ", ".join(f"{clock.removesuffix('_s')} {each:.2f}" for clock, each in value.items())
            print(f"{key:30} {text}")
        elif key != "repeats":
            print(f"{key:30} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
