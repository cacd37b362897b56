"""The evaluation report: a JSON object that holds its own inputs, so that anyone can compute it again.

A report is a pure function of what it records (digests, suites, margins, method, compute, packages) and of
the outcome set that it names. It carries no time and no machine name: the same work has the same report, and
the digest of its canonical JSON is its name. Layout:

    {schema, statistics_version, base, adapter, outcomes, method, compute, packages,
     suites: [{name, role, rule, version, digest, items, template, margin, statistics, verdict, ...}],
     gate: {verdict, regressed, findings}}
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evalstats import VERSION
from evalstats.comparison import Comparison, Level, Method, compare
from evalstats.gate import Role, SuiteResult, SuiteVerdict, decide
from evalstats.outcomes import Outcomes, pair
from evalstats.paired import Interval
from evalstats.rules import Rule

SCHEMA = "openledger.evaluation.report.v1"
OUTCOME_SET_SCHEMA = "openledger.evaluation.outcome-set.v1"


class InvalidReport(ValueError):
    """A report or outcome set that does not have the form its schema asks for."""


@dataclass(frozen=True)
class SuiteRecord:
    """What a report says about a suite before any result."""

    name: str
    role: Role
    rule: Rule
    version: str
    digest: str
    """Of the four things that make a suite: items, template, rule and version."""
    items_digest: str
    template_digest: str
    margin: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.margin) and self.margin >= 0):
            raise InvalidReport(f"suite {self.name}: margin {self.margin} must be a number, at least 0")


@dataclass(frozen=True)
class Inputs:
    """All of a report that is not computed."""

    base_digest: str
    adapter_digest: str
    outcomes_digest: str
    """Digest of the canonical JSON of the outcome set."""
    suites: tuple[SuiteRecord, ...]
    method: Method
    compute: Mapping[str, Any]
    packages: Mapping[str, str]


def outcome_set(pairs: Sequence[tuple[Outcomes, Outcomes]]) -> dict[str, object]:
    """The object that a report's statistics rest on: for each suite, base and tuned outcomes, in suite
    order."""
    return {
        "schema": OUTCOME_SET_SCHEMA,
        "suites": [{"base": base.to_json(), "tuned": tuned.to_json()} for base, tuned in pairs],
    }


def read_outcome_set(value: Mapping[str, Any]) -> list[tuple[Outcomes, Outcomes]]:
    """Raises InvalidReport or InvalidOutcomes."""
    suites = value.get("suites")
    if value.get("schema") != OUTCOME_SET_SCHEMA or not isinstance(suites, list):
        raise InvalidReport(f"not an outcome set: schema {value.get('schema')!r}")
    if not all(
        isinstance(s, dict) and isinstance(s.get("base"), dict) and isinstance(s.get("tuned"), dict)
        for s in suites
    ):
        raise InvalidReport("each suite of an outcome set needs the objects base and tuned")
    return [(Outcomes.from_json(suite["base"]), Outcomes.from_json(suite["tuned"])) for suite in suites]


def build(inputs: Inputs, pairs: Sequence[tuple[Outcomes, Outcomes]]) -> dict[str, Any]:
    """The report. Raises InvalidReport when outcomes belong to other suites or models than the inputs
    name."""
    if len(pairs) != len(inputs.suites):
        raise InvalidReport(f"{len(inputs.suites)} suites, but outcomes of {len(pairs)}")
    results = []
    for suite, (base, tuned) in zip(inputs.suites, pairs, strict=True):
        if base.suite_digest != suite.digest:
            raise InvalidReport(f"{suite.name} is {suite.digest}, its outcomes are of {base.suite_digest}")
        if (base.base_digest, tuned.adapter_digest) != (inputs.base_digest, inputs.adapter_digest):
            raise InvalidReport(f"the outcomes of {suite.name} belong to other models than the report's")
        comparison = compare(pair(suite.rule.metric, base, tuned), suite.margin, inputs.method)
        results.append(SuiteResult(suite.name, suite.role, suite.rule.metric, suite.margin, comparison))
    gate = decide(results, inputs.method.alpha)
    return {
        "schema": SCHEMA,
        "statistics_version": VERSION,
        "base": inputs.base_digest,
        "adapter": inputs.adapter_digest,
        "outcomes": inputs.outcomes_digest,
        "method": asdict(inputs.method),
        "compute": dict(inputs.compute),
        "packages": dict(inputs.packages),
        "suites": [
            _suite_json(suite, result.comparison, verdict)
            for suite, result, verdict in zip(inputs.suites, results, gate.suites, strict=True)
        ],
        "gate": {
            "verdict": gate.verdict.value,
            "regressed": gate.regressed,
            "findings": [suite.finding for suite in gate.suites],
        },
    }


def read_inputs(report: Mapping[str, Any]) -> Inputs:
    """What a report was computed from. Raises InvalidReport, naming what is missing or malformed."""
    if report.get("schema") != SCHEMA or report.get("statistics_version") != VERSION:
        raise InvalidReport(
            f"schema {report.get('schema')!r}, statistics version {report.get('statistics_version')!r}: "
            f"this verifier reads {SCHEMA!r} version {VERSION!r}"
        )
    try:
        return Inputs(
            base_digest=str(report["base"]),
            adapter_digest=str(report["adapter"]),
            outcomes_digest=str(report["outcomes"]),
            suites=tuple(_suite_record(suite) for suite in report["suites"]),
            method=Method(**report["method"]),
            compute=dict(report["compute"]),
            packages=dict(report["packages"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidReport(f"the report is malformed: {error!r}") from error


def recompute(report: Mapping[str, Any], outcomes: Mapping[str, Any]) -> dict[str, Any]:
    """The report as its own inputs and the outcome set give it. Compare with `differences`."""
    return build(read_inputs(report), read_outcome_set(outcomes))


def _suite_record(suite: Mapping[str, Any]) -> SuiteRecord:
    return SuiteRecord(
        name=suite["name"],
        role=Role(suite["role"]),
        rule=Rule(suite["rule"]),
        version=suite["version"],
        digest=suite["digest"],
        items_digest=suite["items"],
        template_digest=suite["template"],
        margin=float(suite["margin"]),
    )


def _suite_json(suite: SuiteRecord, comparison: Comparison, verdict: SuiteVerdict) -> dict[str, Any]:
    return {
        "name": suite.name,
        "role": suite.role.value,
        "metric": suite.rule.metric.value,
        "rule": suite.rule.value,
        "version": suite.version,
        "digest": suite.digest,
        "items": suite.items_digest,
        "template": suite.template_digest,
        "margin": suite.margin,
        "statistics": {
            "n": comparison.n,
            "clusters": comparison.clusters,
            "design_effect": comparison.design_effect,
            "base": _level_json(comparison.base),
            "tuned": _level_json(comparison.tuned),
            "gain": {"value": comparison.gain, "interval": _interval_json(comparison.interval)},
            "gain_lower_bound": comparison.lower_bound,
            "gain_upper_bound": comparison.upper_bound,
            "gain_standard_error": comparison.standard_error,
            "improved": comparison.improved,
            "worsened": comparison.worsened,
            "regression_p": comparison.regression_p,
            "regression_p_holm": verdict.regression_p_holm,
            "items_needed": comparison.items_needed,
        },
        "verdict": verdict.verdict.value,
        "regressed": verdict.regressed,
        "finding": verdict.finding,
    }


def _level_json(level: Level) -> dict[str, Any]:
    return {"value": level.value, "interval": _interval_json(level.interval)}


def _interval_json(interval: Interval) -> dict[str, Any]:
    return {"lower": interval.lower, "upper": interval.upper, "method": interval.method}
