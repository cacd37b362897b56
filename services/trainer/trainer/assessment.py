"""What a spec will lead to, assessed before it runs: each finding names a value, its consequence, and its source.

"Our measurement" is SmolLM2-135M-Instruct, LoRA of rank 16 on all linear layers, 14-way classification of
ATT&CK procedures, 16 records a step; docs/training.md has the figures and the commands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any, Self

from trainer.contract.spec import ALL_LINEAR, EffectiveSpec, TrainingSpec
from trainer.facts import CHARACTERS_A_TOKEN, DataFacts
from trainer.suggestion import FEW_STEPS, RATE_FEW_STEPS, RATE_MANY_STEPS

OURS = "our measurement on SmolLM2-135M (docs/training.md; python bench/training_bench.py)"


class Severity(IntEnum):
    """How much a finding matters. The numbers are those of the API."""

    INFO = 1
    WARNING = 2
    DANGER = 3


@dataclass(frozen=True, kw_only=True)
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
    """(suite, margin), stricter than the gate policy's."""
    gate_policy: str = ""
    """Id of the gate policy; "" means the one of the model's runs, and the default for its first run."""


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """The answer to a proposal: what it will lead to, what would run, and how long that takes."""

    findings: tuple[Finding, ...]
    """Gravest first."""
    suggested: TrainingSpec
    effective: EffectiveSpec
    expected_s: float
    expected_basis: str
    """What the expected time was computed from, for people."""

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON object, as it is stored with a run."""
        return {
            "findings": [asdict(finding) for finding in self.findings],
            "suggested": self.suggested.to_json(),
            "effective": self.effective.spec.to_json(),
            "origins": dict(self.effective.origins),
            "expected_s": self.expected_s,
            "expected_basis": self.expected_basis,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Reads what `to_json` returned."""
        findings = ({**finding, "severity": Severity(finding["severity"])} for finding in content["findings"])
        return cls(
            findings=tuple(Finding(**finding) for finding in findings),
            suggested=TrainingSpec.from_json(content["suggested"]),
            effective=EffectiveSpec(TrainingSpec.from_json(content["effective"]), content["origins"]),
            expected_s=content["expected_s"],
            expected_basis=content["expected_basis"],
        )


@dataclass(frozen=True)
class Case:
    """What is judged together."""

    spec: TrainingSpec
    facts: DataFacts
    intent: Intent
    linear_modules: Sequence[str] = ALL_LINEAR
    """Of the base."""

    @property
    def rehearses(self) -> bool:
        return self.spec.rehearsal.kind != "none"

    @property
    def epochs(self) -> float:
        return self.spec.steps * self.spec.batch_size / max(1, self.facts.train_records)


def assess(
    spec: TrainingSpec, facts: DataFacts, intent: Intent, linear_modules: Sequence[str] = ALL_LINEAR
) -> list[Finding]:
    """Returns all findings, gravest first; within one severity in the order of the rules below."""
    case = Case(spec, facts, intent, linear_modules)
    found = [finding for rule in _RULES for finding in rule(case)]
    return sorted(found, key=lambda finding: -finding.severity)


def _forgetting(case: Case) -> Iterator[Finding]:
    rate, value = case.spec.learning_rate, f"{case.spec.learning_rate:g}"
    if rate >= 1e-3 and not case.rehearses:
        yield Finding(
            severity=Severity.DANGER,
            parameter="learning_rate",
            value=value,
            consequence="The model will learn the task and forget much of the rest. At 2e-3 without rehearsal, 40 steps raised "
            "bits per byte on general English from 1.20 to 1.90 (+0.69, 95% interval 0.65 to 0.74). "
            "Such a rate moves the weights far from the base, and nothing in the loss pulls them back.",
            advice=f"Use {RATE_FEW_STEPS:g} with self-generated rehearsal: "
            "the same steps then cost less than 0.004 bits per byte.",
            source=OURS,
        )
    elif rate >= 1e-3:
        yield Finding(
            severity=Severity.WARNING,
            parameter="learning_rate",
            value=value,
            consequence="Far above what rehearsal was measured to hold: it pulls back towards the base on its own samples, "
            "not on everything that the base can do.",
            advice=f"Use {RATE_FEW_STEPS:g} or less.",
            source=OURS,
        )
    elif rate > RATE_MANY_STEPS and not case.rehearses:
        yield Finding(
            severity=Severity.WARNING,
            parameter="learning_rate",
            value=value,
            consequence="Without rehearsal forgetting grows with the rate: already at 2e-4, 150 steps cost 0.14 bits per byte "
            "and nine points of ARC-Easy.",
            advice="Keep the rate and turn self-generated rehearsal on.",
            source=OURS,
        )


def _rehearsal(case: Case) -> Iterator[Finding]:
    rehearsal = case.spec.rehearsal
    times_seen = case.spec.steps * rehearsal.sequences_per_step / max(rehearsal.sequences, 1)
    if not case.rehearses:
        keeps = ", ".join(suite for suite, _ in case.intent.keep) or "the retained suites"
        yield Finding(
            severity=Severity.WARNING,
            parameter="rehearsal.kind",
            value="none",
            consequence=f"Nothing holds the model to its base; the gate on {keeps} is likely to refuse promotion. On the same "
            "task, rehearsal with KL to the base removed the loss (1.27 to 1.13 bits per byte at 150 steps) at no cost "
            "in accuracy.",
            advice="Use self-generated: 128 sequences of 48 tokens, 6 a step, KL weight 2. A step takes about 60% longer.",
            source=f"arXiv 2605.26097, 2512.22337; {OURS}",
        )
        return
    if rehearsal.kl_weight > 8:
        yield Finding(
            severity=Severity.WARNING,
            parameter="rehearsal.kl_weight",
            value=f"{rehearsal.kl_weight:g}",
            consequence="The pull to the base outweighs the task: the model will change little and learn little.",
            advice="Use 1 to 4.",
            source="arXiv 2512.22337",
        )
    elif rehearsal.kl_weight < 0.5:
        yield Finding(
            severity=Severity.WARNING,
            parameter="rehearsal.kl_weight",
            value=f"{rehearsal.kl_weight:g}",
            consequence="Too weak to matter beside the task's loss: this costs rehearsal's time and keeps little.",
            advice="Use 1 to 4.",
            source=OURS,
        )
    if rehearsal.sequences < 64:
        yield Finding(
            severity=Severity.WARNING,
            parameter="rehearsal.sequences",
            value=str(rehearsal.sequences),
            consequence=f"Every sequence is seen {times_seen:.0f} times: "
            "the model is held to the base on few texts and drifts elsewhere.",
            advice="Use 128 or more; sampling them takes about half a minute on two cores.",
            source="arXiv 2605.29498",
        )


def _learning_too_little(case: Case) -> Iterator[Finding]:
    spec = case.spec
    if spec.steps < FEW_STEPS and spec.learning_rate < 3e-4:
        yield Finding(
            severity=Severity.WARNING,
            parameter="learning_rate",
            value=f"{spec.learning_rate:g}",
            consequence=f"Too low for {spec.steps} steps: at 2e-4, 40 steps reached .28 accuracy where 5e-4 reached .50, both "
            "with rehearsal.",
            advice=f"Use {RATE_FEW_STEPS:g}, or at least {FEW_STEPS} steps.",
            source=OURS,
        )
    if spec.warmup_ratio > 0.3:
        yield Finding(
            severity=Severity.INFO,
            parameter="warmup_ratio",
            value=f"{spec.warmup_ratio:g}",
            consequence="A large part of the run is spent below its rate.",
            advice="Use 0.03 to 0.1.",
            source="common practice",
        )


def _repetition(case: Case) -> Iterator[Finding]:
    steps, epochs = str(case.spec.steps), case.epochs
    if epochs > 5:
        yield Finding(
            severity=Severity.WARNING,
            parameter="steps",
            value=steps,
            consequence=f"Each record is seen {epochs:.1f} times: the model memorises them, which also makes their texts easier "
            "to extract from it.",
            advice="Stay at 5 times or less, or add records.",
            source="arXiv 2202.07646",
        )
    elif epochs < 0.5 and case.facts.train_records:
        yield Finding(
            severity=Severity.INFO,
            parameter="steps",
            value=steps,
            consequence=f"About {epochs:.0%} of the records will be seen; contributors of the others cannot be attributed "
            "anything from this run.",
            advice=f"{case.facts.train_records // case.spec.batch_size} steps see every record once.",
            source="arithmetic",
        )


def _capacity(case: Case) -> Iterator[Finding]:
    spec = case.spec
    scale = spec.lora_alpha / spec.lora_rank
    if scale > 4:
        yield Finding(
            severity=Severity.WARNING,
            parameter="lora_alpha",
            value=str(spec.lora_alpha),
            consequence=f"alpha / rank = {scale:g} multiplies every update: it acts like a higher learning rate.",
            advice=f"Use {2 * spec.lora_rank} for rank {spec.lora_rank}.",
            source="arXiv 2106.09685",
        )
    if spec.lora_rank >= 64 and case.facts.train_records < 10_000:
        yield Finding(
            severity=Severity.INFO,
            parameter="lora_rank",
            value=str(spec.lora_rank),
            consequence=f"More capacity than {case.facts.train_records} records need; higher ranks also forget more.",
            advice="Use 16.",
            source="arXiv 2405.09673",
        )
    if set(spec.target_modules) != set(case.linear_modules):
        yield Finding(
            severity=Severity.INFO,
            parameter="target_modules",
            value=",".join(spec.target_modules),
            consequence="Fewer adapted modules learn less at the same rate and rank.",
            advice="All linear layers unless the gate asks for less.",
            source="arXiv 2405.09673",
        )


def _data(case: Case) -> Iterator[Finding]:
    facts = case.facts
    if facts.train_records < 100:
        yield Finding(
            severity=Severity.WARNING,
            parameter="snapshots",
            value=f"{facts.train_records} records to train on",
            consequence="Too few to learn from rather than to memorise.",
            advice="Seal at least a few hundred records.",
            source="rule of thumb",
        )
    if facts.held_out_records < 100:
        yield Finding(
            severity=Severity.WARNING,
            parameter="snapshots",
            value=f"{facts.held_out_records} held out",
            consequence="The evaluation of the task will be inconclusive unless the gain is very large.",
            advice="Hold out 150 records or more; 248 show non-inferiority at 5 points with 10% discordance.",
            source="arXiv 2411.00640",
        )
    if facts.train_records and facts.train_clusters < 0.7 * facts.train_records:
        share = 1 - facts.train_clusters / facts.train_records
        yield Finding(
            severity=Severity.INFO,
            parameter="snapshots",
            value=f"{share:.0%} near-duplicates",
            consequence="Near-duplicates are learned as repetition, and their contributors share one influence.",
            advice="Nothing to do: clusters are split and attributed together.",
            source="arXiv 2107.06499",
        )
    if facts.largest_share > 0.5:
        yield Finding(
            severity=Severity.INFO,
            parameter="snapshots",
            value=f"one contributor gave {facts.largest_share:.0%}",
            consequence="The model will speak with that contributor's voice, "
            "and about 250 documents suffice to plant a backdoor.",
            advice="Cap records by contributor in the Datanet's policy.",
            source="arXiv 2510.07192",
        )


def _length(case: Case) -> Iterator[Finding]:
    needed = case.facts.long_characters / CHARACTERS_A_TOKEN
    if needed > case.spec.max_tokens:
        yield Finding(
            severity=Severity.WARNING,
            parameter="max_tokens",
            value=str(case.spec.max_tokens),
            consequence=f"More than one record in twenty is longer (about {needed:.0f} tokens); their beginnings are cut.",
            advice=f"Use {int(needed * 1.2)}, at the price of time and memory.",
            source="arithmetic",
        )


_RULES: tuple[Callable[[Case], Iterator[Finding]], ...] = (
    _forgetting,
    _rehearsal,
    _learning_too_little,
    _repetition,
    _capacity,
    _data,
    _length,
)
