"""What a spec will lead to, said before it runs: each rule names a value, its consequence, and who measured
it.

"Our measurement" is SmolLM2-135M-Instruct, LoRA of rank 16 on all linear layers, 14-way classification of
ATT&CK procedures, 16 records a step; docs/training.md has the figures and the commands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from trainer.facts import CHARACTERS_A_TOKEN, DataFacts
from trainer.spec import ALL_LINEAR, TrainingSpec
from trainer.suggestion import FEW_STEPS, RATE_FEW_STEPS, RATE_MANY_STEPS

OURS = "our measurement on SmolLM2-135M (docs/training.md; python bench/training_bench.py)"


class Severity(IntEnum):
    """How much a finding matters. The numbers are those of the API's enum."""

    INFO = 1
    WARNING = 2
    DANGER = 3


@dataclass(frozen=True)
class Finding:
    """One consequence of one value."""

    severity: Severity
    parameter: str
    """Path, e.g. "learning_rate"."""
    value: str
    consequence: str
    """What will happen, and why."""
    advice: str
    source: str
    """Paper or measurement behind it."""


@dataclass(frozen=True)
class Intent:
    """What a run is for."""

    purpose: str = ""
    keep: tuple[tuple[str, float], ...] = ()
    """(suite, largest tolerated fall); empty means the platform's retained suites at their margins."""


@dataclass(frozen=True)
class Case:
    """All that is judged together."""

    spec: TrainingSpec
    facts: DataFacts
    intent: Intent

    @property
    def replays(self) -> bool:
        return self.spec.replay.kind != "none"

    @property
    def epochs(self) -> float:
        return self.spec.steps * self.spec.batch_size / max(1, self.facts.train_records)


def assess(spec: TrainingSpec, facts: DataFacts, intent: Intent) -> list[Finding]:
    """All findings, gravest first; within one severity in the order of the rules below."""
    case = Case(spec, facts, intent)
    found = [finding for rule in _RULES for finding in rule(case)]
    return sorted(found, key=lambda finding: -finding.severity)


def _forgetting(case: Case) -> Iterator[Finding]:
    rate, value = case.spec.learning_rate, f"{case.spec.learning_rate:g}"
    if rate >= 1e-3 and not case.replays:
        yield Finding(
            Severity.DANGER, "learning_rate", value,
            "The model will learn the task and forget much of the rest. At 2e-3 without replay, 40 steps raised "
            "bits per byte on general English from 1.20 to 1.90 (+0.69, 95% interval 0.65 to 0.74). "
            "Such a rate moves the weights far from the base, and nothing in the loss pulls them back.",
            f"Use {RATE_FEW_STEPS:g} with self-generated replay: the same steps then cost less than 0.004 bits per byte.",
            OURS,
        )  # fmt: skip
    elif rate >= 1e-3:
        yield Finding(
            Severity.WARNING, "learning_rate", value,
            "Far above what replay was measured to hold: it pulls back towards the base on its own samples, not on "
            "everything that the base can do.",
            f"Use {RATE_FEW_STEPS:g} or less.", OURS,
        )  # fmt: skip
    elif rate > RATE_MANY_STEPS and not case.replays:
        yield Finding(
            Severity.WARNING, "learning_rate", value,
            "Without replay forgetting grows with the rate: already at 2e-4, 150 steps cost 0.14 bits per byte and "
            "nine points of ARC-Easy.",
            "Keep the rate and turn self-generated replay on.", OURS,
        )  # fmt: skip


def _replay(case: Case) -> Iterator[Finding]:
    replay = case.spec.replay
    if not case.replays:
        keeps = ", ".join(suite for suite, _ in case.intent.keep) or "the retained suites"
        yield Finding(
            Severity.WARNING, "replay.kind", "none",
            f"Nothing holds the model to its base; the gate on {keeps} is likely to refuse promotion. On the same "
            "task, replay with KL to the base removed the loss (1.27 to 1.13 bits per byte at 150 steps) at no cost "
            "in accuracy.",
            "Use self_generated: 128 sequences of 48 tokens, 6 a step, KL weight 2. A step takes about 60% longer.",
            f"arXiv 2605.26097, 2512.22337; {OURS}",
        )  # fmt: skip
        return
    if replay.kl_weight > 8:
        yield Finding(
            Severity.WARNING, "replay.kl_weight", f"{replay.kl_weight:g}",
            "The pull to the base outweighs the task: the model will change little and learn little.",
            "Use 1 to 4.", "arXiv 2512.22337",
        )  # fmt: skip
    elif replay.kl_weight < 0.5:
        yield Finding(
            Severity.WARNING, "replay.kl_weight", f"{replay.kl_weight:g}",
            "Too weak to matter beside the task's loss: this costs replay's time and keeps little.",
            "Use 1 to 4.", OURS,
        )  # fmt: skip
    if replay.sequences < 64:
        yield Finding(
            Severity.WARNING, "replay.sequences", str(replay.sequences),
            f"Every sequence is seen {case.spec.steps * replay.sequences_per_step / replay.sequences:.0f} times: the "
            "model is held to the base on few texts and drifts elsewhere.",
            "Use 128 or more; sampling them takes about half a minute on two cores.", "arXiv 2605.29498",
        )  # fmt: skip


def _learning_too_little(case: Case) -> Iterator[Finding]:
    spec = case.spec
    if spec.steps < FEW_STEPS and spec.learning_rate < 3e-4:
        yield Finding(
            Severity.WARNING, "learning_rate", f"{spec.learning_rate:g}",
            f"Too low for {spec.steps} steps: at 2e-4, 40 steps reached .28 accuracy where 5e-4 reached .50, both "
            "with replay.",
            f"Use {RATE_FEW_STEPS:g}, or at least {FEW_STEPS} steps.", OURS,
        )  # fmt: skip
    if spec.warmup_ratio > 0.3:
        yield Finding(
            Severity.INFO, "warmup_ratio", f"{spec.warmup_ratio:g}",
            "A large part of the run is spent below its rate.", "Use 0.03 to 0.1.", "common practice",
        )  # fmt: skip


def _repetition(case: Case) -> Iterator[Finding]:
    steps, epochs = str(case.spec.steps), case.epochs
    if epochs > 5:
        yield Finding(
            Severity.WARNING, "steps", steps,
            f"Each record is seen {epochs:.1f} times: the model memorises them, which also makes their texts easier "
            "to extract from it.",
            "Stay at 5 times or less, or add records.", "arXiv 2202.07646",
        )  # fmt: skip
    elif epochs < 0.5 and case.facts.train_records:
        yield Finding(
            Severity.INFO, "steps", steps,
            f"About {epochs:.0%} of the records will be seen; contributors of the others cannot be attributed "
            "anything from this run.",
            f"{case.facts.train_records // case.spec.batch_size} steps see every record once.", "arithmetic",
        )  # fmt: skip


def _capacity(case: Case) -> Iterator[Finding]:
    spec = case.spec
    scale = spec.lora_alpha / spec.lora_rank
    if scale > 4:
        yield Finding(
            Severity.WARNING, "lora_alpha", str(spec.lora_alpha),
            f"alpha / rank = {scale:g} multiplies every update: it acts like a higher learning rate.",
            f"Use {2 * spec.lora_rank} for rank {spec.lora_rank}.", "arXiv 2106.09685",
        )  # fmt: skip
    if spec.lora_rank >= 64 and case.facts.train_records < 10_000:
        yield Finding(
            Severity.INFO, "lora_rank", str(spec.lora_rank),
            f"More capacity than {case.facts.train_records} records need; higher ranks also forget more.",
            "Use 16.", "arXiv 2405.09673",
        )  # fmt: skip
    if set(spec.target_modules) != set(ALL_LINEAR):
        yield Finding(
            Severity.INFO, "target_modules", ",".join(spec.target_modules),
            "Fewer adapted modules learn less at the same rate and rank.",
            "All linear layers unless the gate asks for less.", "arXiv 2405.09673",
        )  # fmt: skip


def _data(case: Case) -> Iterator[Finding]:
    facts = case.facts
    if facts.train_records < 100:
        yield Finding(
            Severity.WARNING, "snapshots", f"{facts.train_records} records to train on",
            "Too few to learn from rather than to memorise.", "Seal at least a few hundred records.",
            "rule of thumb",
        )  # fmt: skip
    if facts.held_out_records < 100:
        yield Finding(
            Severity.WARNING, "snapshots", f"{facts.held_out_records} held out",
            "The evaluation of the task will be inconclusive unless the gain is very large.",
            "Hold out 150 records or more; 248 show non-inferiority at 5 points with 10% discordance.",
            "arXiv 2411.00640",
        )  # fmt: skip
    if facts.train_records and facts.train_clusters < 0.7 * facts.train_records:
        share = 1 - facts.train_clusters / facts.train_records
        yield Finding(
            Severity.INFO, "snapshots", f"{share:.0%} near-duplicates",
            "Near-duplicates are learned as repetition, and their contributors share one influence.",
            "Nothing to do: clusters are split and attributed together.", "arXiv 2107.06499",
        )  # fmt: skip
    if facts.largest_share > 0.5:
        yield Finding(
            Severity.INFO, "snapshots", f"one contributor gave {facts.largest_share:.0%}",
            "The model will speak with that contributor's voice, and about 250 documents suffice to plant a backdoor.",
            "Cap records by contributor in the Datanet's policy.", "arXiv 2510.07192",
        )  # fmt: skip


def _length(case: Case) -> Iterator[Finding]:
    needed = case.facts.long_characters / CHARACTERS_A_TOKEN
    if needed > case.spec.max_tokens:
        yield Finding(
            Severity.WARNING, "max_tokens", str(case.spec.max_tokens),
            f"More than one record in twenty is longer (about {needed:.0f} tokens); their beginnings are cut.",
            f"Use {int(needed * 1.2)}, at the price of time and memory.", "arithmetic",
        )  # fmt: skip


_RULES: tuple[Callable[[Case], Iterator[Finding]], ...] = (
    _forgetting, _replay, _learning_too_little, _repetition, _capacity, _data, _length,
)  # fmt: skip
