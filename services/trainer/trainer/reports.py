"""Stored evaluation reports: what a promotion reads from one, and what it may conclude."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from evalstats.policy import GatePolicy, Role, SuitePolicy, Verdict


def judged(canonical_report: bytes, policy: GatePolicy | None) -> Verdict:
    """Returns the verdict of a report under a policy. One that was made by another policy, or lacks a suite of this one, is
    incomplete whatever it says, unless it says that the model failed."""
    report = json.loads(canonical_report)
    verdict = Verdict(report["gate"]["verdict"])
    if verdict is Verdict.FAILED:
        return verdict
    if policy is None or report.get("policy_digest") != policy.digest:
        return Verdict.INCOMPLETE
    suites = {suite["name"]: suite for suite in report["suites"]}
    if not all(_measured(suites.get(wanted.name), wanted) for wanted in policy.suites):
        return Verdict.INCOMPLETE
    return verdict


def _measured(suite: Mapping[str, Any] | None, wanted: SuitePolicy) -> bool:
    if suite is None or suite["role"] != wanted.role:
        return False
    if wanted.scored_otherwise(suite.get("rule", ""), suite.get("version", "")):
        return False
    if wanted.role is Role.DOMAIN:
        return bool(suite["margin"] >= wanted.margin)
    return bool(suite["margin"] <= wanted.margin)


def blocking_findings(canonical_report: bytes) -> list[str]:
    """Returns the findings of the suites that did not pass, failed ones first: why a promotion is refused."""
    refused = [suite for suite in json.loads(canonical_report)["suites"] if _blocks(suite)]
    return [
        suite["finding"] for suite in sorted(refused, key=lambda suite: suite["verdict"] != Verdict.FAILED)
    ]


def worst_suite(canonical_report: bytes) -> dict[str, Any] | None:
    """Returns the suite that most prevents a promotion: failed before others, then the surest fall beyond its margin. None where
    each suite that was measured passed."""
    refused = [suite for suite in json.loads(canonical_report)["suites"] if _blocks(suite)]

    def severity(suite: dict[str, Any]) -> tuple[bool, float]:
        statistics = suite["statistics"]
        beyond = -statistics["gain"]["value"] - suite["margin"]
        error = statistics["gain_standard_error"] or 1.0
        return suite["verdict"] == Verdict.FAILED, beyond / error

    return max(refused, key=severity, default=None)


def _blocks(suite: Mapping[str, Any]) -> bool:
    """Whether a suite counts, and did not pass."""
    return bool(suite["verdict"] != Verdict.PASS and suite.get("counted", True))
