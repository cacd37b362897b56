"""Does a report say what its outcomes say? For the offline verifier and for tests."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from evalstats.outcomes import Outcomes
from evalstats.policy import GatePolicy, Verdict, looser
from evalstats.report import InvalidReport, read_inputs, read_outcome_set, recompute
from evalstats.rules import Rule, value

ITEMS_SCHEMA = "openledger.evaluation.items.v1"

TOLERANCE = 1e-9
"""Relative and absolute. Sums round differently on different processors; nothing else may differ."""


@dataclass(frozen=True)
class Difference:
    """One place where a report and its recomputation differ, as "$.suites[0].statistics.n"."""

    path: str
    recorded: object
    recomputed: object

    def __str__(self) -> str:
        return f"{self.path}: recorded {self.recorded!r}, recomputed {self.recomputed!r}"


def check_report(report: Mapping[str, Any], outcomes: Mapping[str, Any]) -> list[Difference]:
    """Recomputes every statistic and verdict from the outcome set; empty when the report is right.

    The caller has checked the digests of both objects. Raises InvalidReport or InvalidOutcomes when one of
    them cannot be read.
    """
    found = list(_differences("$", dict(report), recompute(report, outcomes)))
    for number, suite in enumerate(read_inputs(report).suites):
        found.extend(_differences(f"$.suites[{number}].digest", suite.digest, suite.named))
    return found


def check_policy(report: Mapping[str, Any], policy: GatePolicy) -> list[str]:
    """What of a policy the report does not meet, a sentence each; empty when the model passed a gate at least as strict.

    Reads what the report says: `check_report` says whether that is so. Raises InvalidReport.
    """
    inputs = read_inputs(report)
    found = looser(inputs.policy, policy)
    if inputs.policy.digest != report.get("policy_digest"):
        found.append(
            f"the report names policy {report.get('policy_digest')}, it holds {inputs.policy.digest}"
        )
    verdicts = {suite["name"]: suite for suite in report["suites"]}
    for wanted in inputs.policy.suites:
        measured = verdicts.get(wanted.name)
        if measured is None:
            found.append(f"suite {wanted.name} was not measured")
            continue
        found += wanted.scored_otherwise(str(measured.get("rule")), str(measured.get("version")))
        if measured.get("verdict") != Verdict.PASS:
            found.append(f"suite {wanted.name} did not pass: {measured.get('finding')}")
    gate = report.get("gate")
    said = gate.get("verdict") if isinstance(gate, dict) else None
    if not found and said != Verdict.PASS:
        found.append(f"the report's verdict is {said!r}, not {Verdict.PASS.value!r}")
    return found


def check_items(
    report: Mapping[str, Any], outcomes: Mapping[str, Any], items: Mapping[str, Mapping[str, Any]]
) -> list[Difference]:
    """Recomputes every item's value from its log-likelihoods by the suite's rule, for the suites whose items
    object (by its digest, already checked) is in `items`. Empty when right. Raises as `check_report`."""
    found: list[Difference] = []
    inputs = read_inputs(report)
    for suite, pair in zip(inputs.suites, read_outcome_set(outcomes), strict=True):
        if suite.items_digest not in items:
            continue
        for side, model in zip(("base", "tuned"), pair, strict=True):
            path = f"$.{suite.name}.{side}"
            found.extend(_value_differences(path, suite.rule, model, items[suite.items_digest]))
    return found


def _value_differences(
    path: str, rule: Rule, model: Outcomes, items: Mapping[str, Any]
) -> Iterator[Difference]:
    if items.get("schema") != ITEMS_SCHEMA or not isinstance(items.get("items"), list):
        raise InvalidReport(f"{path}: not an items object")
    entries = items["items"]
    if [entry["id"] for entry in entries] != [outcome.item for outcome in model.items]:
        yield Difference(f"{path}.items", [o.item for o in model.items], [entry["id"] for entry in entries])
        return
    for entry, outcome in zip(entries, model.items, strict=True):
        place = f"{path}.{outcome.item}"
        if entry["cluster"] != outcome.cluster:
            yield Difference(f"{place}.cluster", outcome.cluster, entry["cluster"])
        computed = value(rule, outcome.log_likelihoods, entry["options"], entry["gold"])
        yield from _differences(f"{place}.value", outcome.value, computed)


def _differences(path: str, recorded: object, computed: object) -> Iterator[Difference]:
    if isinstance(recorded, dict) and isinstance(computed, dict) and recorded.keys() == computed.keys():
        for key in sorted(recorded):
            yield from _differences(f"{path}.{key}", recorded[key], computed[key])
    elif isinstance(recorded, list) and isinstance(computed, list) and len(recorded) == len(computed):
        for index, (left, right) in enumerate(zip(recorded, computed, strict=True)):
            yield from _differences(f"{path}[{index}]", left, right)
    elif not _same(recorded, computed):
        yield Difference(path, recorded, computed)


def _same(recorded: object, computed: object) -> bool:
    numbers = (int, float)
    if isinstance(recorded, numbers) and isinstance(computed, numbers) and not isinstance(recorded, bool):
        return math.isclose(recorded, computed, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return recorded == computed
