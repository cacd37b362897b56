"""Judges a report by a gate policy, with nothing but their bytes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from evalstats.outcomes import InvalidOutcomes
from evalstats.policy import GatePolicy, looser
from evalstats.report import InvalidReport
from evalstats.report import judge as judge_report
from evalstats.verification import check_report
from identity.digest import sha256_bytes


class CannotJudge(Exception):
    """A report that says nothing: it is unreadable, or is not what its outcomes say."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a policy says of a report."""

    verdict: str
    """pass, failed, inconclusive or incomplete."""
    findings: tuple[str, ...]
    policy_digest: str
    report_digest: str

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON object."""
        return asdict(self)


def judge(report: bytes, outcomes: bytes, policy: GatePolicy | None) -> Judgement:
    """Recomputes a report from its outcomes and judges it: by its own policy, or by another one.

    Raises CannotJudge when the report is not what its outcomes say, or cannot be read.
    """
    try:
        content, items = json.loads(report), json.loads(outcomes)
        if sha256_bytes(outcomes) != content["outcomes"]:
            raise CannotJudge(
                f"the outcomes have the digest {sha256_bytes(outcomes)}, the report names {content['outcomes']}"
            )
        differences = check_report(content, items)
        if differences:
            raise CannotJudge(f"the report is not what its outcomes say: {differences[0]}")
        applied = policy or GatePolicy.from_json(content["policy"])
        found = judge_report(content, items, applied)
    except (KeyError, TypeError, ValueError, InvalidReport, InvalidOutcomes) as error:
        raise CannotJudge(f"the report cannot be judged: {error}") from None
    missing = [f"{name}: not measured" for name in found.missing]
    # Said, and no reason to refuse: the report's own policy does not decide here.
    notes = [
        f"the report's own policy is looser: {sentence}"
        for sentence in looser(GatePolicy.from_json(content["policy"]), applied)
    ]
    return Judgement(
        verdict=str(found.verdict),
        findings=(*(suite.finding for suite in found.suites), *missing, *notes),
        policy_digest=applied.digest,
        report_digest=sha256_bytes(report),
    )
