"""The guide to a training spec: what each value is, what it may be, and what goes wrong below and above.

Everything that states a range or a consequence is made from it: the rules in the proto and the table in docs/training.md
(`python tools/gen_training_parameters.py`), the CLI's --help, the assessment's findings and `DescribeParameters`.
"Measured" is SmolLM2-135M-Instruct on ATT&CK procedures, as docs/training.md tells; what has no measurement says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["number", "integer", "choice", "names"]

MEASURED = "measured on SmolLM2-135M (docs/training.md; python bench/training_bench.py)"
_LORA = "arXiv 2106.09685"
_PRACTICE = "common practice; not measured here"
_DEFINITION = "definition"


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One value of a training spec."""

    name: str
    """Path in the spec, e.g. "rehearsal.kl_weight"."""
    words: str
    """What it is: one sentence."""
    kind: Kind
    unit: str = ""
    least: float | None = None
    """Smallest value that can run; None without a bound."""
    most: float | None = None
    least_excluded: bool = False
    """Whether `least` itself cannot run."""
    most_excluded: bool = False
    choices: tuple[str, ...] = ()
    default: str
    """What is taken when it is not set: a value or a rule."""
    warn_below: float | None = None
    """A smaller value is warned about, whatever the rest of the spec."""
    warn_above: float | None = None
    """A greater value is warned about, whatever the rest of the spec."""
    below: str
    """What goes wrong when it is too small, or which choice costs what."""
    above: str = ""
    """What goes wrong when it is too large."""
    advice: str
    """What is usually right."""
    evidence: str
    """Paper or measurement behind the sentences."""

    @property
    def range(self) -> str:
        """What it may be, in words: "above 0, at most 0.1"."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.kind == "names":
            return "names of the base's linear layers"
        least = (
            "" if self.least is None else f"{'above' if self.least_excluded else 'at least'} {self.least:g}"
        )
        most = (
            "" if self.most is None else f"{'below' if self.most_excluded else 'at most'} {_plain(self.most)}"
        )
        return ", ".join(bound for bound in (least, most) if bound)

    @property
    def too_small(self) -> str:
        """What a client reads when the value is below its range."""
        return f"must be {self.range}. {self.below}"

    @property
    def too_large(self) -> str:
        """What a client reads when the value is above its range."""
        return f"must be {self.range}. {self.above}"

    def reaches(self, value: float) -> bool:
        """Returns whether a number is not below the range."""
        return self.least is None or (value > self.least if self.least_excluded else value >= self.least)

    def fits(self, value: float) -> bool:
        """Returns whether a number is not above the range."""
        return self.most is None or (value < self.most if self.most_excluded else value <= self.most)


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else f"{number:g}"


_PARAMETERS = (
    Parameter(
        name="method",
        words="How weights are tuned: plain LoRA, or LoRA whose scale is alpha / sqrt(rank) (rsLoRA).",
        kind="choice",
        choices=("lora", "rslora"),
        default="lora",
        below="With plain LoRA a higher rank makes smaller updates; with rsLoRA the same alpha makes larger ones.",
        advice="lora; rslora for ranks above 64, with a smaller alpha.",
        evidence="arXiv 2312.03732",
    ),
    Parameter(
        name="learning_rate",
        words="Peak rate of AdamW, reached after warm-up.",
        kind="number",
        least=0.0,
        least_excluded=True,
        most=0.1,
        warn_above=1e-2,
        default="5e-4 below 100 steps, else 2e-4",
        below="The model moves too little to learn: at 2e-4, 40 steps reached .28 accuracy where 5e-4 reached .50.",
        above="A higher rate forgets more, and from 1e-2 on training diverges or leaves a model that answers nonsense.",
        advice="2e-4 to 5e-4, with rehearsal.",
        evidence=f"{MEASURED}; of 1e-2 and above: {_PRACTICE}",
    ),
    Parameter(
        name="steps",
        words="Optimiser steps.",
        kind="integer",
        unit="steps",
        least=1,
        most=1_000_000,
        default="two passes over the records, at least 40 steps, at most five passes or 1000 steps",
        below="Records that no step reaches are not learned, and their contributors earn nothing from this run.",
        above="Records that are seen more than five times are memorised, and are easier to extract from the model.",
        advice="One to five passes over the records.",
        evidence="arXiv 2202.07646",
    ),
    Parameter(
        name="epochs",
        words="Passes over the records, in place of steps; steps follow from it.",
        kind="number",
        unit="passes",
        least=0.0,
        least_excluded=True,
        most=1000,
        default="steps decide",
        below="Below 1, some records are never seen.",
        above="Above 5, records are memorised, and are easier to extract from the model.",
        advice="1 to 5.",
        evidence="arXiv 2202.07646",
    ),
    Parameter(
        name="batch_size",
        words="Records in a batch, over all workers; a step takes gradient_accumulation batches.",
        kind="integer",
        unit="records",
        least=1,
        most=4096,
        default="16; fewer for under 128 records, so that 40 steps see none more than five times",
        below="Small batches make noisy steps.",
        above="Large batches leave few steps for the same records.",
        advice="4 to 32.",
        evidence=_PRACTICE,
    ),
    Parameter(
        name="gradient_accumulation",
        words="Batches whose gradients are summed before a step: more records a step in the same memory.",
        kind="integer",
        unit="batches",
        least=1,
        most=1024,
        default="1",
        below="Fewer than 1 batch makes no step.",
        above="Each step takes as many times longer, and the same records make as many times fewer steps.",
        advice="1, unless a batch does not fit into memory.",
        evidence=_DEFINITION,
    ),
    Parameter(
        name="lora_rank",
        words="Rank of the LoRA matrices.",
        kind="integer",
        least=1,
        most=256,
        default="16",
        below="A low rank learns less of a large or varied data set.",
        above="A high rank has more capacity than few records need, and forgets more.",
        advice="8 to 32.",
        evidence="arXiv 2405.09673",
    ),
    Parameter(
        name="lora_alpha",
        words="Scales LoRA's updates by alpha / rank, with rslora by alpha / sqrt(rank).",
        kind="integer",
        least=1,
        most=1024,
        default="32",
        below="A scale below 1/4 makes updates too small to change the model at usual rates.",
        above="A scale above 4 acts like a higher learning rate.",
        advice="Twice the rank.",
        evidence=f"{_LORA}; the bounds: {_PRACTICE}",
    ),
    Parameter(
        name="lora_dropout",
        words="Part of LoRA's inputs that is set to zero at each training step.",
        kind="number",
        least=0.0,
        most=1.0,
        most_excluded=True,
        default="0",
        warn_above=0.3,
        below="Without dropout, few records that are seen often are memorised sooner.",
        above="Above 0.3 most of the signal is noise, and the run learns little.",
        advice="0 to 0.1.",
        evidence=f"{_LORA}; the bound: {_PRACTICE}",
    ),
    Parameter(
        name="target_modules",
        words="Linear layers that get an adapter, e.g. q_proj and v_proj.",
        kind="names",
        default="all of them",
        below="Fewer adapted modules learn less at the same rate and rank.",
        advice="All linear layers unless the gate asks for less.",
        evidence="arXiv 2405.09673",
    ),
    Parameter(
        name="schedule",
        words="How the rate falls after warm-up: linear or cosine to a tenth of the peak, or constant.",
        kind="choice",
        choices=("linear", "cosine", "constant"),
        default="cosine",
        below="A constant rate ends the run with steps as large as in its middle: the result depends more on the last batches.",
        advice="cosine.",
        evidence=_PRACTICE,
    ),
    Parameter(
        name="warmup_ratio",
        words="Part of the steps in which the rate rises.",
        kind="number",
        least=0.0,
        most=1.0,
        most_excluded=True,
        default="0.1",
        below="Without warm-up the first steps are taken at the full rate, before AdamW knows the gradients' size.",
        above="Above 0.3 a large part of the run is spent below its rate.",
        advice="0.03 to 0.1.",
        evidence=_PRACTICE,
    ),
    Parameter(
        name="weight_decay",
        words="AdamW's pull of LoRA's weights towards zero, times the rate at each step.",
        kind="number",
        least=0.0,
        most=1.0,
        warn_above=0.1,
        default="0",
        below="Without it nothing but rehearsal limits how far the weights move.",
        above="Above 0.1 it takes back what the steps learn.",
        advice="0 to 0.1.",
        evidence=f"arXiv 1711.05101; the bound: {_PRACTICE}",
    ),
    Parameter(
        name="max_grad_norm",
        words="A step's gradient is scaled down to this norm when it is longer; 0 turns it off.",
        kind="number",
        least=0.0,
        most=1000,
        default="1",
        warn_above=10,
        below="0 turns clipping off: one odd batch can undo many steps.",
        above="Above 10 nothing is clipped in practice: one odd batch can undo many steps.",
        advice="1.",
        evidence=_PRACTICE,
    ),
    Parameter(
        name="max_tokens",
        words="Longest record; a longer one loses the beginning of its prompt.",
        kind="integer",
        unit="tokens",
        least=2,
        most=8192,
        default="256, or more when one record in twenty is longer; at most the base's context",
        below="Records lose the beginning of their prompts.",
        above="The base reads at most its context: longer records would be trained at positions that it has never seen.",
        advice="A fifth above the length that one record in twenty exceeds.",
        evidence=_DEFINITION,
    ),
    Parameter(
        name="precision",
        words="Number type of base weights and activations; LoRA's weights are fp32 always.",
        kind="choice",
        choices=("auto", "fp32", "bf16"),
        default="auto: what is faster on the machine, by a measurement at the start",
        below="bf16 is several times slower on processors without bf16 units, and rounds more; fp32 takes twice the memory.",
        advice="auto.",
        evidence=MEASURED,
    ),
    Parameter(
        name="seed",
        words="Seed of everything random: order of records, LoRA's start, rehearsal, dropout.",
        kind="integer",
        least=0,
        default="0",
        below="The same seed, spec, data and number type make the same adapter.",
        advice="Any; several seeds show how much a result depends on chance.",
        evidence=_DEFINITION,
    ),
    Parameter(
        name="workers",
        words="Processes that share each batch, one core each or more.",
        kind="integer",
        unit="processes",
        least=1,
        most=1024,
        default="1",
        below="Fewer than 1 process trains nothing.",
        above="Ray starts no run that asks for more workers than it has cores, and the run waits until it is cancelled.",
        advice="1 on one machine; at most the cores that Ray has, and at most batch_size.",
        evidence=_DEFINITION,
    ),
    Parameter(
        name="rehearsal.kind",
        words="What holds the model to its base: text that the base writes itself, with KL to the base on it, or nothing.",
        kind="choice",
        choices=("none", "self_generated"),
        default="self_generated",
        below="Without rehearsal nothing holds the model to its base, and forgetting grows with the rate.",
        advice="self_generated.",
        evidence=f"arXiv 2605.26097, 2512.22337; {MEASURED}",
    ),
    Parameter(
        name="rehearsal.sequences",
        words="Sequences that the base writes before the first step.",
        kind="integer",
        unit="sequences",
        least=1,
        most=100_000,
        warn_below=64,
        default="128",
        below="The model is held to the base on few texts, each seen often, and drifts elsewhere.",
        above="Sampling takes as much longer.",
        advice="128 or more; sampling them takes about half a minute on two cores.",
        evidence="arXiv 2605.29498",
    ),
    Parameter(
        name="rehearsal.tokens_each",
        words="Length of each sequence, its opening words included.",
        kind="integer",
        unit="tokens",
        least=2,
        most=4096,
        warn_below=16,
        default="48",
        below="A sequence of 1 token holds nothing that the base wrote; one below 16 is mostly its opening words.",
        above="Sampling and each step take longer; at most the base's context.",
        advice="32 to 128.",
        evidence="lengths of the openings (finetune/training/rehearsal.py)",
    ),
    Parameter(
        name="rehearsal.sequences_per_step",
        words="Sequences in each step.",
        kind="integer",
        unit="sequences",
        least=1,
        most=1024,
        default="6",
        below="Fewer than 1 sequence rehearses nothing.",
        above="Each step takes longer; at most the sequences made.",
        advice="4 to 8.",
        evidence=MEASURED,
    ),
    Parameter(
        name="rehearsal.kl_weight",
        words="Weight of KL to the base on rehearsal, beside the loss on the records.",
        kind="number",
        least=0.0,
        most=1000,
        warn_below=0.5,
        warn_above=8,
        default="2",
        below="Below 0.5 it is too weak to matter beside the task's loss: it costs rehearsal's time and keeps little.",
        above="Above 8 the pull to the base outweighs the task: the model changes little and learns little.",
        advice="1 to 4.",
        evidence=f"arXiv 2512.22337; {MEASURED}",
    ),
)

GUIDE: Mapping[str, Parameter] = {parameter.name: parameter for parameter in _PARAMETERS}
"""Every value of a spec by its path, in the order in which people are shown them."""
