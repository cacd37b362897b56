"""What a spec will lead to, assessed before it runs: each finding names a value, its consequence, and its source.

The sentences are those of the guide (`openledger_client.training_parameters`); what depends on several values or on the data
is computed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any, Self

from openledger_client.training_parameters import GUIDE, MEASURED
from trainer.contract.spec import EffectiveSpec, TrainingSpec
from trainer.facts import UNKNOWN, DataFacts, Surroundings
from trainer.suggestion import FEW_STEPS, MOST_EPOCHS, RATE_FEW_STEPS, RATE_MANY_STEPS, longest

_LEAST_SCALE, _GREATEST_SCALE = 0.25, 4.0
_LEAST_RATES = RATE_MANY_STEPS * FEW_STEPS
"""Rate times steps of the shortest run that may learn slowly."""


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
    around: Surroundings

    @property
    def rehearses(self) -> bool:
        return self.spec.rehearsal.kind != "none"

    @property
    def epochs(self) -> float:
        return self.spec.steps * self.spec.records_per_step / max(1, self.facts.train_records)

    def of(self, severity: Severity, name: str, consequence: str = "", **other: str) -> Finding:
        """Returns a finding on a value of the spec, in the guide's words where none are given."""
        guide, value = GUIDE[name], self.spec.values()[name]
        return Finding(
            severity=severity,
            parameter=name,
            value=other.get("value", f"{value:g}" if isinstance(value, float) else str(value)),
            consequence=consequence,
            advice=other.get("advice", f"Usual: {guide.advice}"),
            source=other.get("source", guide.evidence),
        )


def assess(
    spec: TrainingSpec, facts: DataFacts, intent: Intent, around: Surroundings = UNKNOWN
) -> list[Finding]:
    """Returns all findings, gravest first; within one severity in the order of the rules below."""
    case = Case(spec, facts, intent, around)
    found = [finding for rule in _RULES for finding in rule(case)]
    return sorted(found, key=lambda finding: -finding.severity)


def _forgetting(case: Case) -> Iterator[Finding]:
    rate, name, above = case.spec.learning_rate, "learning_rate", GUIDE["learning_rate"].above
    if rate >= (GUIDE[name].warn_above or 0):
        yield case.of(Severity.DANGER, name, above, advice=f"Use {RATE_FEW_STEPS:g} or less.")
    elif rate >= 1e-3 and not case.rehearses:
        yield case.of(
            Severity.DANGER,
            name,
            "The model will learn the task and forget much of the rest. At 2e-3 without rehearsal, 40 steps raised "
            "bits per byte on general English from 1.20 to 1.90 (+0.69, 95% interval 0.65 to 0.74). "
            "Such a rate moves the weights far from the base, and nothing in the loss pulls them back.",
            advice=f"Use {RATE_FEW_STEPS:g} with self-generated rehearsal: "
            "the same steps then cost less than 0.004 bits per byte.",
            source=MEASURED,
        )
    elif rate >= 1e-3:
        yield case.of(
            Severity.WARNING,
            name,
            "Far above what rehearsal was measured to hold: it pulls back towards the base on its own samples, "
            "not on everything that the base can do.",
            advice=f"Use {RATE_FEW_STEPS:g} or less.",
            source=MEASURED,
        )
    elif rate > RATE_MANY_STEPS and not case.rehearses:
        yield case.of(
            Severity.WARNING,
            name,
            "Without rehearsal forgetting grows with the rate: already at 2e-4, 150 steps cost 0.14 bits per byte "
            "and nine points of ARC-Easy.",
            advice="Keep the rate and turn self-generated rehearsal on.",
            source=MEASURED,
        )


def _rehearsal(case: Case) -> Iterator[Finding]:
    if case.rehearses:
        return
    keeps = ", ".join(suite for suite, _ in case.intent.keep) or "the retained suites"
    yield case.of(
        Severity.WARNING,
        "rehearsal.kind",
        f"{GUIDE['rehearsal.kind'].below} The gate on {keeps} is likely to refuse promotion. On the same task, rehearsal "
        "with KL to the base removed the loss (1.27 to 1.13 bits per byte at 150 steps) at no cost in accuracy.",
        advice="Use self_generated: 128 sequences of 48 tokens, 6 a step, KL weight 2. A step takes about 60% longer.",
    )


def _out_of_bounds(case: Case) -> Iterator[Finding]:
    """Values that are warned about whatever the others are. The rate has rules of its own."""
    for name, value in case.spec.values().items():
        guide = GUIDE[name]
        if not isinstance(value, int | float) or name == "learning_rate":
            continue
        if name.startswith("rehearsal.") and not case.rehearses:
            continue
        if guide.warn_below is not None and value < guide.warn_below:
            yield case.of(Severity.WARNING, name, guide.below)
        elif guide.warn_above is not None and value > guide.warn_above:
            yield case.of(Severity.WARNING, name, guide.above)


def _learning_too_little(case: Case) -> Iterator[Finding]:
    spec, name = case.spec, "learning_rate"
    few = spec.steps < FEW_STEPS and spec.learning_rate < 3e-4
    slow = spec.learning_rate < RATE_MANY_STEPS and spec.learning_rate * spec.steps < _LEAST_RATES
    if few or slow:
        yield case.of(
            Severity.WARNING,
            name,
            f"Too low for {spec.steps} steps. {GUIDE[name].below}",
            advice=f"Use {RATE_FEW_STEPS:g} below {FEW_STEPS} steps, {RATE_MANY_STEPS:g} for more.",
            source=MEASURED,
        )
    if spec.warmup_ratio > 0.3:
        yield case.of(Severity.INFO, "warmup_ratio", GUIDE["warmup_ratio"].above)


def _repetition(case: Case) -> Iterator[Finding]:
    epochs, records, name = case.epochs, case.facts.train_records, "steps"
    if epochs > MOST_EPOCHS:
        yield case.of(
            Severity.WARNING,
            name,
            f"Each record is seen {epochs:.1f} times. {GUIDE[name].above}",
            advice=f"Stay at {MOST_EPOCHS} times or less, or add records.",
        )
    elif epochs < 0.5 and records:
        yield case.of(
            Severity.INFO,
            name,
            f"About {epochs:.0%} of the records will be seen. {GUIDE[name].below}",
            advice=f"{records // case.spec.records_per_step} steps see every record once.",
            source="arithmetic",
        )


def _capacity(case: Case) -> Iterator[Finding]:
    spec, guide = case.spec, GUIDE["lora_alpha"]
    if not _LEAST_SCALE <= spec.scale <= _GREATEST_SCALE:
        yield case.of(
            Severity.WARNING,
            "lora_alpha",
            f"It multiplies every update by {spec.scale:.3g}. "
            + (guide.above if spec.scale > _GREATEST_SCALE else guide.below),
            advice=f"Use {max(1, round(2 * spec.lora_alpha / spec.scale))} for rank {spec.lora_rank}.",
        )
    if spec.lora_rank >= 64 and case.facts.train_records < 10_000:
        yield case.of(Severity.INFO, "lora_rank", GUIDE["lora_rank"].above)
    if set(spec.target_modules) != set(case.around.linear_modules):
        yield case.of(
            Severity.INFO,
            "target_modules",
            GUIDE["target_modules"].below,
            value=",".join(spec.target_modules),
        )


def _optimiser(case: Case) -> Iterator[Finding]:
    if case.spec.max_grad_norm == 0:
        yield case.of(Severity.WARNING, "max_grad_norm", GUIDE["max_grad_norm"].below)
    if case.spec.schedule == "constant":
        yield case.of(Severity.INFO, "schedule", GUIDE["schedule"].below)


def _workers(case: Case) -> Iterator[Finding]:
    cores = case.around.cores
    if cores is not None and case.spec.workers > cores:
        yield case.of(
            Severity.DANGER,
            "workers",
            f"Ray has {cores} cores. {GUIDE['workers'].above}",
            advice=f"Use {cores} or fewer.",
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
    """Says what is cut. Where the base reads no more, there is nothing to change but the records."""
    needed, most = longest(case.facts), case.spec.max_tokens
    if needed <= most:
        return
    limit = int(GUIDE["max_tokens"].most or 0)
    at_limit = most >= min(case.around.context or limit, limit)
    yield case.of(
        Severity.INFO if at_limit else Severity.WARNING,
        "max_tokens",
        f"More than one record in twenty is longer (about {needed} tokens). {GUIDE['max_tokens'].below}",
        advice="No more can be read: shorten the records, or take a base with a longer context."
        if at_limit
        else f"Use {int(needed * 1.2)}, at the price of time and memory.",
        source="arithmetic",
    )


_RULES: tuple[Callable[[Case], Iterator[Finding]], ...] = (
    _forgetting,
    _rehearsal,
    _out_of_bounds,
    _learning_too_little,
    _repetition,
    _capacity,
    _optimiser,
    _workers,
    _data,
    _length,
)
