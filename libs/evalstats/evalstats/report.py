"""The evaluation report: a JSON object that holds its own inputs, so that anyone can compute it again.

A report is a pure function of what it records (digests, suites, margins, method, compute, packages) and of
the outcome set that it names. It carries no time and no machine name: the same work has the same report, and
the digest of its canonical JSON is its name. Layout:

    {schema, statistics_version, base, adapter, outcomes, policy, policy_digest, policy_source, method, compute,
     packages,
     suites: [{name, role, rule, version, digest, items, template, margin, available, counted, statistics, test,
               verdict, ...}],
     gate: {verdict, regressed, missing, findings}}

`policy` is the effective gate policy itself, `policy_digest` its name, `policy_source` the digest of the policy that
it was made from. `statistics` hold for a number of items fixed in advance, `test` at any number of items: the verdict
comes from `test`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from evalstats import VERSION
from evalstats.comparison import Level, Method, compare
from evalstats.findings import may_advise
from evalstats.gate import GateVerdict, SuiteResult, SuiteVerdict, decide
from evalstats.outcomes import Outcomes
from evalstats.paired import Interval, pair
from evalstats.policy import GatePolicy, settled
from evalstats.power import items_to_pass
from evalstats.records import (
    OUTCOME_SET_SCHEMA,
    SCHEMA,
    InvalidReport,
    SuiteRecord,
    check_outcomes,
    outcome_set,
    read_outcome_set,
    suite_record,
    tested,
)
from evalstats.sequential import Sequential, sequential

__all__ = [
    "OUTCOME_SET_SCHEMA",
    "SCHEMA",
    "Inputs",
    "InvalidReport",
    "SuiteRecord",
    "build",
    "judge",
    "outcome_set",
    "read_inputs",
    "read_outcome_set",
    "recompute",
]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """All of a report that is not computed."""

    base_digest: str
    adapter_digest: str
    outcomes_digest: str
    """Digest of the canonical JSON of the outcome set."""
    suites: tuple[SuiteRecord, ...]
    policy: GatePolicy
    """The effective policy: what the model's intent made of the policy that it names."""
    policy_source: str
    """Digest of the policy that it names, in the version that was used."""
    method: Method
    compute: Mapping[str, Any]
    packages: Mapping[str, str]


def build(inputs: Inputs, pairs: Sequence[tuple[Outcomes, Outcomes]]) -> dict[str, Any]:
    """The report. Raises InvalidReport when outcomes belong to other suites or models than the inputs name, or do not
    stand in the order of the policy's seed, and when a suite's role, margin, rule
    or version is not the policy's."""
    results = _results(inputs, inputs.policy, pairs)
    gate = decide(results, inputs.policy)
    return {
        "schema": SCHEMA,
        "statistics_version": VERSION,
        "base": inputs.base_digest,
        "adapter": inputs.adapter_digest,
        "outcomes": inputs.outcomes_digest,
        "policy": inputs.policy.to_json(),
        "policy_digest": inputs.policy.digest,
        "policy_source": inputs.policy_source,
        "method": asdict(inputs.method),
        "compute": dict(inputs.compute),
        "packages": dict(inputs.packages),
        "suites": [
            _suite_json(suite, result, verdict)
            for suite, result, verdict in zip(inputs.suites, results, gate.suites, strict=True)
        ],
        "gate": {
            "verdict": gate.verdict.value,
            "regressed": gate.regressed,
            "missing": list(gate.missing),
            "findings": [suite.finding for suite in gate.suites],
        },
    }


def judge(report: Mapping[str, Any], outcomes: Mapping[str, Any], policy: GatePolicy) -> GateVerdict:
    """The verdict that a policy of your own gives on a report's outcomes, whatever policy the report was made by.

    Suites that the policy names are tested with its margins and alpha. Raises InvalidReport, InvalidOutcomes; the former
    also where the items stand in the order of another seed than the policy's.
    """
    inputs = read_inputs(report)
    suites = []
    for record in inputs.suites:
        wanted = policy.suite(record.name)
        suites.append(record if wanted is None else replace(record, role=wanted.role, margin=wanted.margin))
    judged = replace(inputs, suites=tuple(suites), policy=policy)
    return decide(_results(judged, policy, read_outcome_set(outcomes)), policy)


def _results(
    inputs: Inputs, policy: GatePolicy, pairs: Sequence[tuple[Outcomes, Outcomes]]
) -> list[SuiteResult]:
    if len(pairs) != len(inputs.suites):
        raise InvalidReport(f"{len(inputs.suites)} suites, but outcomes of {len(pairs)}")
    if len({suite.name for suite in inputs.suites}) != len(inputs.suites):
        raise InvalidReport("a suite stands twice")
    return [_result(inputs, policy, suite, pair) for suite, pair in zip(inputs.suites, pairs, strict=True)]


def _result(
    inputs: Inputs, policy: GatePolicy, record: SuiteRecord, outcomes: tuple[Outcomes, Outcomes]
) -> SuiteResult:
    base, tuned = outcomes
    check_outcomes(
        record,
        base,
        tuned,
        models=(inputs.base_digest, inputs.adapter_digest),
        seed=policy.seed,
    )
    suite = tested(record, policy, len(base.items))
    pairs = pair(record.rule.metric, base, tuned)
    comparison = compare(pairs, inputs.method)
    test = sequential(pairs, suite, alpha=policy.alpha, retained=policy.retained)
    verdict = settled(test.verdict, suite, items=pairs.n, available=record.available)
    advised = may_advise(verdict, suite, comparison, test)
    return SuiteResult(
        suite=suite,
        metric=record.rule.metric,
        available=record.available,
        comparison=comparison,
        test=test,
        items_needed=items_to_pass(pairs, suite, policy.alpha, inputs.method.seed) if advised else None,
    )


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
            suites=tuple(suite_record(suite) for suite in report["suites"]),
            policy=GatePolicy.from_json(report["policy"]),
            policy_source=str(report["policy_source"]),
            method=Method(**report["method"]),
            compute=dict(report["compute"]),
            packages=dict(report["packages"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidReport(f"the report is malformed: {error!r}") from error


def recompute(report: Mapping[str, Any], outcomes: Mapping[str, Any]) -> dict[str, Any]:
    """The report as its own inputs and the outcome set give it. Compare with `differences`."""
    return build(read_inputs(report), read_outcome_set(outcomes))


def _suite_json(suite: SuiteRecord, result: SuiteResult, verdict: SuiteVerdict) -> dict[str, Any]:
    comparison = result.comparison
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
        "available": suite.available,
        "counted": verdict.counted,
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
            "items_needed": result.items_needed,
        },
        "test": _test_json(result.test),
        "verdict": verdict.verdict.value,
        "regressed": verdict.regressed,
        "finding": verdict.finding,
    }


def _test_json(test: Sequential) -> dict[str, Any]:
    return {
        "decided_after": test.decided_after,
        "observations": test.observations,
        "bound": test.bound,
        "clipped": test.clipped,
        "pass": {"log_capital": test.pass_log_capital, "threshold": test.pass_threshold},
        "fail": {"log_capital": test.fail_log_capital, "threshold": test.fail_threshold},
        "gain_lower_bound": test.lower_bound,
        "gain_upper_bound": test.upper_bound,
        "worse_p": test.worse_p,
    }


def _level_json(level: Level) -> dict[str, Any]:
    return {"value": level.value, "interval": _interval_json(level.interval)}


def _interval_json(interval: Interval) -> dict[str, Any]:
    return {"lower": interval.lower, "upper": interval.upper, "method": interval.method}
