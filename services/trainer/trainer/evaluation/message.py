"""A report as the API's message. The message is a view: the canonical JSON inside it is the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from openledger.common.v1 import estimate_pb2
from openledger.trainer.v1 import trainer_pb2

from identity.digest import sha256_bytes

VERDICTS: Mapping[str, trainer_pb2.Verdict.ValueType] = {
    "pass": trainer_pb2.VERDICT_PASSED,
    "failed": trainer_pb2.VERDICT_FAILED,
    "inconclusive": trainer_pb2.VERDICT_INCONCLUSIVE,
}

_UNITS = {"accuracy": "accuracy", "bits_per_byte": "bits/byte"}


def report_message(canonical_report: bytes) -> trainer_pb2.EvaluationReport:
    """The message of a stored report; `canonical_report` are the object's bytes, exactly."""
    report: dict[str, Any] = json.loads(canonical_report)
    return trainer_pb2.EvaluationReport(
        digest=sha256_bytes(canonical_report),
        canonical_json=canonical_report,
        base_digest=report["base"],
        adapter_digest=report["adapter"],
        suites=[_suite(suite, report["method"]) for suite in report["suites"]],
        verdict=VERDICTS[report["gate"]["verdict"]],
        reasons=report["gate"]["findings"],
        outcomes_digest=report["outcomes"],
        compute=f"{report['compute']['device']}/{report['compute']['dtype']}",
    )


def blocking_findings(canonical_report: bytes) -> list[str]:
    """Findings of the suites that did not pass, those that failed first: why a promotion is refused."""
    suites = json.loads(canonical_report)["suites"]
    refused = [suite for suite in suites if suite["verdict"] != "pass"]
    return [suite["finding"] for suite in sorted(refused, key=lambda suite: suite["verdict"] != "failed")]


def _suite(suite: Mapping[str, Any], method: Mapping[str, Any]) -> trainer_pb2.EvaluationReport.SuiteResult:
    statistics = suite["statistics"]
    concluded = suite["verdict"] != "inconclusive"

    def estimate(figure: Mapping[str, Any]) -> estimate_pb2.Estimate:
        interval = figure["interval"]
        return estimate_pb2.Estimate(
            value=figure["value"],
            lower=interval["lower"],
            upper=interval["upper"],
            confidence=method["confidence"],
            sample_size=statistics["clusters"],
            unit=_UNITS[suite["metric"]],
            method=_method(interval["method"], statistics, method),
        )

    return trainer_pb2.EvaluationReport.SuiteResult(
        suite=suite["name"],
        items_digest=suite["items"],
        template_digest=suite["template"],
        scoring_rule=f"{suite['rule']}/{suite['version']}",
        base=estimate(statistics["base"]),
        tuned=estimate(statistics["tuned"]),
        difference=estimate(statistics["gain"]),
        difference_lower_bound=statistics["gain_lower_bound"],
        difference_upper_bound=statistics["gain_upper_bound"],
        margin=suite["margin"],
        gated=suite["role"] == "retained",
        verdict=VERDICTS[suite["verdict"]],
        regression_p_value=statistics["regression_p_holm"],
        items_needed=0 if concluded else statistics["items_needed"] or 0,
    )


def _method(name: str, statistics: Mapping[str, Any], method: Mapping[str, Any]) -> str:
    """For people: "tango, 300 items in 280 clusters", "bootstrap-t, ..., 10000 resamples, seed 7"."""
    sample = f"{name}, {statistics['n']} items in {statistics['clusters']} clusters"
    if name == "bootstrap-t":
        return f"{sample}, {method['resamples']} resamples, seed {method['seed']}"
    return sample
