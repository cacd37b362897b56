"""Step 3: base and both adapters on the same items; the gate; promotion."""

from __future__ import annotations

import time

import grpc
from openledger.trainer.v1 import trainer_pb2 as pb

from servicekit.errors import FailedPrecondition, from_rpc_error
from threat_intel.people import APPROVER, BUILDER
from threat_intel.telling import Outcome, Telling

COLOUR = {pb.VERDICT_PASSED: "green", pb.VERDICT_FAILED: "red", pb.VERDICT_INCONCLUSIVE: "yellow"}


def run(telling: Telling) -> Outcome:
    """Evaluates, tries to promote the careless one, promotes the careful one."""
    outcome = Outcome()
    reports: dict[str, pb.EvaluationReport] = {}
    started = {way: _start(telling, way) for way in ("careless", "careful")}
    for way, evaluation in started.items():
        begun = time.monotonic()
        reports[way] = _watch(telling, way, evaluation)
        wall_s = time.monotonic() - begun
        _show(telling, way, reports[way])
        _figures(outcome, way, reports[way], wall_s, telling.scale.jobs_at_once)
    careless = telling.result("finetune")["careless"]["version"]
    refusal = _refused(telling, careless)
    if refusal is None:
        telling.say(f"[yellow]{careless} passed its gate at this scale and was promoted[/yellow]")
    else:
        telling.say(f"[red]refused[/red] {careless}: {refusal.code.name}: {refusal}")
    outcome.facts["refusal"] = (
        {}
        if refusal is None
        else {
            "code": refusal.code.name,
            "reason": refusal.reason,
            "message": str(refusal),
            "metadata": dict(refusal.metadata),
        }
    )
    outcome.facts["careful"], outcome.facts["override"] = _promote(telling, reports["careful"])
    outcome.facts["reports"] = {way: report.digest for way, report in reports.items()}
    outcome.facts["suites"] = {
        way: [_row(suite) for suite in report.suites] for way, report in reports.items()
    }
    outcome.facts["verdicts"] = {way: _verdict(report.verdict) for way, report in reports.items()}
    return outcome


def _start(telling: Telling, way: str) -> pb.Evaluation:
    """Asks for the evaluation of a way's version."""
    suites = [
        pb.EvaluateModelVersionRequest.SuiteRequest(suite=suite, items=items)
        for suite, items in telling.scale.suites.items()
    ]
    request = pb.EvaluateModelVersionRequest(
        name=telling.result("finetune")[way]["version"],
        suites=suites,
        request_id=telling.journal.request_id(f"evaluate-{way}"),
    )
    started: pb.Evaluation = telling.as_(BUILDER).trainer.EvaluateModelVersion(request, timeout=60)
    return started


def _watch(telling: Telling, way: str, evaluation: pb.Evaluation) -> pb.EvaluationReport:
    """Follows an evaluation to its report. Raises FailedPrecondition when it did not succeed."""
    trainer = telling.as_(BUILDER).trainer
    with telling.bar(way, None) as bar:
        for update in trainer.WatchEvaluation(pb.WatchEvaluationRequest(name=evaluation.name)):
            evaluation = update.evaluation
            if update.HasField("progress"):
                bar.at(
                    update.progress.done,
                    update.progress.total or None,
                    f"{update.items_per_s:.1f} items/s",
                    f"{way}: {update.progress.stage or 'queued'}",
                )
    if evaluation.state != pb.RUN_STATE_SUCCEEDED:
        raise FailedPrecondition(
            "EVALUATION_FAILED",
            f"{evaluation.name}: {evaluation.error}",
            subject=evaluation.name,
        )
    return trainer.GetEvaluationReport(
        pb.GetEvaluationReportRequest(digest=evaluation.report_digest), timeout=60
    )


def _refused(telling: Telling, version: str) -> FailedPrecondition | None:
    """Tries to promote a version whose gate failed; the refusal is what the gate is for."""
    try:
        telling.as_(BUILDER).trainer.PromoteModelVersion(
            pb.PromoteModelVersionRequest(
                name=version, request_id=telling.journal.request_id("promote-careless")
            ),
            timeout=60,
        )
    except grpc.RpcError as error:
        problem = from_rpc_error(error)
        if isinstance(problem, FailedPrecondition):
            return problem
        raise
    return None


def _promote(telling: Telling, report: pb.EvaluationReport) -> tuple[str, dict[str, str]]:
    """Promotes the careful version: by its gate, or by a recorded decision of two people where the gate cannot conclude."""
    version = telling.result("finetune")["careful"]["version"]
    builder, approver = telling.as_(BUILDER).trainer, telling.as_(APPROVER).trainer
    override: dict[str, str] = {}
    if report.verdict != pb.VERDICT_PASSED:
        open_suites = ", ".join(
            f"{s.suite} ({s.items_needed:,} items would decide)" if s.items_needed else s.suite
            for s in report.suites
            if s.verdict != pb.VERDICT_PASSED
        )
        asked = builder.CreatePromotionOverride(
            pb.CreatePromotionOverrideRequest(
                model_version=version,
                reason=f"Gate {_verdict(report.verdict)} at this sample size: {open_suites}. "
                "Promoted for the analysts' trial; to be measured again on more items.",
                request_id=telling.journal.request_id("override"),
            ),
            timeout=60,
        )
        approved = approver.ApprovePromotionOverride(
            pb.ApprovePromotionOverrideRequest(name=asked.name), timeout=60
        )
        telling.say(
            f"gate of the careful one is [yellow]{_verdict(report.verdict)}[/yellow] ({open_suites}): "
            f"override asked by {approved.requester}, approved by {approved.approver}"
        )
        override = {
            "name": approved.name,
            "requester": approved.requester,
            "approver": approved.approver,
            "reason": approved.reason,
        }
    promoted = builder.PromoteModelVersion(
        pb.PromoteModelVersionRequest(
            name=version,
            override=override.get("name", ""),
            request_id=telling.journal.request_id("promote-careful"),
        ),
        timeout=60,
    )
    telling.say(f"[green]promoted[/green] {promoted.name}, resting on report {promoted.report_digest}")
    return promoted.name, override


def _show(telling: Telling, way: str, report: pb.EvaluationReport) -> None:
    colour = COLOUR.get(report.verdict, "white")
    telling.say(
        f"[bold]{way}[/bold] gate [{colour}]{_verdict(report.verdict)}[/{colour}], report {report.digest}"
    )
    for suite in report.suites:
        d = suite.difference
        colour = COLOUR.get(suite.verdict, "white")
        role = f"margin {suite.margin:g}" if suite.gated else "gain"
        telling.say(
            f"  {suite.suite:15} base {suite.base.value:.3f}  tuned {suite.tuned.value:.3f}  better by {d.value:+.3f} "
            f"[{d.lower:+.3f}, {d.upper:+.3f}] n={d.sample_size}  {role}  [{colour}]{_verdict(suite.verdict)}[/{colour}]"
        )


def _figures(outcome: Outcome, way: str, report: pb.EvaluationReport, wall_s: float, at_once: int) -> None:
    items = sum(suite.difference.sample_size for suite in report.suites)
    for suite in report.suites:
        if way == "careless":
            outcome.figures.estimate(f"base: {suite.suite}", suite.base, report.digest)
        outcome.figures.estimate(f"{way}: {suite.suite}", suite.tuned, report.digest)
        outcome.figures.estimate(
            f"{way}: {suite.suite}, paired difference to base (positive is better)",
            suite.difference,
            report.digest,
        )
    outcome.figures.add(
        f"{way}: evaluation wall time",
        round(wall_s, 1),
        "s",
        f"timed from when it was followed, {at_once} at a time, with Ray's start; the first scores the base too",
    )
    outcome.figures.add(
        f"{way}: evaluation speed",
        round(items / wall_s, 2),
        "items/s",
        "items of the report over that wall time",
    )


def _row(suite: pb.EvaluationReport.SuiteResult) -> dict[str, object]:
    d = suite.difference
    return {
        "suite": suite.suite,
        "base": suite.base.value,
        "tuned": suite.tuned.value,
        "difference": d.value,
        "lower": d.lower,
        "upper": d.upper,
        "n": d.sample_size,
        "margin": suite.margin,
        "gated": suite.gated,
        "verdict": _verdict(suite.verdict),
    }


def _verdict(verdict: pb.Verdict.ValueType) -> str:
    return pb.Verdict.Name(verdict).removeprefix("VERDICT_").lower()
