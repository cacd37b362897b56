"""The control plane records no verdict that does not follow: what a job reports is decided again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from openledger.trainer.v1 import trainer_pb2 as pb

from trainer.contract.evaluation import EvaluationJob

pytestmark = pytest.mark.slow


def says_that_it_passed(report: dict[str, Any]) -> str:
    report["gate"]["verdict"] = "pass"
    return "verdict: it says 'pass'"


def says_so_of_the_suite_too(report: dict[str, Any]) -> str:
    for suite in report["suites"]:
        suite["verdict"] = "pass"
    says_that_it_passed(report)
    return "arc_easy, verdict: it says 'pass'"


def says_that_a_suite_is_in_no_policy(report: dict[str, Any]) -> str:
    del report["policy"]["suites"][0]
    return "policy_digest: it says"


def is_of_another_adapter(report: dict[str, Any]) -> str:
    report["adapter"] = report["base"]
    return "models: it says"


def test_a_report_that_contradicts_its_outcomes_fails_its_evaluation_and_changes_nothing(
    trainer: Any, report_of: Callable[..., tuple[dict[str, Any], bytes]]
) -> None:
    trainer.seal()
    version = trainer.trained()
    lost = {"domain": 0.3, "hellaswag": 0.0, "arc_easy": -0.3, "bits_per_byte": 0.0}
    lies = (
        says_that_it_passed,
        says_so_of_the_suite_too,
        says_that_a_suite_is_in_no_policy,
        is_of_another_adapter,
    )
    for lie in lies:
        evaluation = trainer.stub().EvaluateModelVersion(pb.EvaluateModelVersionRequest(name=version.name))
        trainer.at_ray(evaluation.name)
        job = EvaluationJob.read(trainer.folder(evaluation.name))
        report, outcomes = report_of(version, lost, job, trainer.service.objects.put_bytes)
        assert report["gate"]["verdict"] == "failed"
        said = lie(report)
        ended = trainer.reported(evaluation, report, outcomes)
        assert ended.state == pb.RUN_STATE_FAILED, lie
        assert said in ended.error, lie
        after = trainer.stub().GetModelVersion(pb.GetModelVersionRequest(name=version.name))
        assert (after.report_digest, after.state) == ("", pb.MODEL_VERSION_STATE_TRAINED)
    assert trainer.evaluated(version, arc_easy=-0.3).verdict == pb.VERDICT_FAILED
