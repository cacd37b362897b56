"""Step 3: base and both adapters on the same items; the gate; promotion."""

from __future__ import annotations

import time

from openledger.trainer.v1 import trainer_pb2 as pb

from openledger_client.errors import FailedPrecondition
from openledger_client.watches import watch
from threat_intel.people import APPROVER, BUILDER
from threat_intel.run import Outcome, Run

COLOUR = {
    pb.VERDICT_PASSED: "green",
    pb.VERDICT_FAILED: "red",
    pb.VERDICT_INCONCLUSIVE: "yellow",
    pb.VERDICT_INCOMPLETE: "yellow",
}


def execute(run: Run) -> Outcome:
    """Evaluates, tries to promote the careless one, promotes the careful one."""
    outcome = Outcome()
    reports: dict[str, pb.EvaluationReport] = {}
    started = {way: _start(run, way) for way in ("careless", "careful")}
    for way, evaluation in started.items():
        begun = time.monotonic()
        reports[way] = _watch(run, way, evaluation)
        wall_s = time.monotonic() - begun
        _show(run, way, reports[way])
        _figures(outcome, way, reports[way], wall_s, run.scale.jobs_at_once)
    careless = run.result("finetune")["careless"]["version"]
    refusal = _refused(run, careless)
    if refusal is None:
        run.say(f"[yellow]{careless} passed its gate at this scale and was promoted[/yellow]")
    else:
        run.say(f"[red]refused[/red] {careless}: {refusal.code.name}: {refusal}")
        outcome.facts["refused_override"] = _refused_override(run, careless)
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
    outcome.facts["careful"], outcome.facts["override"] = _promote(run, reports["careful"])
    outcome.facts["reports"] = {way: report.digest for way, report in reports.items()}
    outcome.facts["suites"] = {
        way: [_row(suite) for suite in report.suites] for way, report in reports.items()
    }
    outcome.facts["verdicts"] = {way: _verdict(report.verdict) for way, report in reports.items()}
    return outcome


def _start(run: Run, way: str) -> pb.Evaluation:
    """Asks for the evaluation of a way's version by its gate policy."""
    request = pb.EvaluateModelVersionRequest(
        name=run.result("finetune")[way]["version"],
        request_id=run.journal.request_id(f"evaluate-{way}"),
    )
    started: pb.Evaluation = run.as_(BUILDER).trainer.EvaluateModelVersion(request, timeout=60)
    return started


def _watch(run: Run, way: str, evaluation: pb.Evaluation) -> pb.EvaluationReport:
    """Follows an evaluation to its report. Raises FailedPrecondition when it did not succeed."""
    trainer = run.as_(BUILDER).trainer
    with run.progress(way, None) as bar:
        for update in watch(trainer.WatchEvaluation, pb.WatchEvaluationRequest(name=evaluation.name)):
            evaluation = update.evaluation
            if update.HasField("progress"):
                bar.at(
                    update.progress.done,
                    update.progress.total or None,
                    f"{update.items_per_s:.1f} items/s" if update.items_per_s >= 0.05 else "",
                    f"{way}: {update.progress.stage or 'queued'}",
                )
    if evaluation.state != pb.RUN_STATE_SUCCEEDED:
        raise FailedPrecondition(
            f"{evaluation.name}: {evaluation.error}", reason="EVALUATION_FAILED", subject=evaluation.name
        )
    return trainer.GetEvaluationReport(
        pb.GetEvaluationReportRequest(digest=evaluation.report_digest), timeout=60
    )


def _refused(run: Run, version: str) -> FailedPrecondition | None:
    """Tries to promote a version whose gate failed; the refusal is what the gate is for."""
    try:
        run.as_(BUILDER).trainer.PromoteModelVersion(
            pb.PromoteModelVersionRequest(
                name=version, request_id=run.journal.request_id("promote-careless")
            ),
            timeout=60,
        )
    except FailedPrecondition as refusal:
        return refusal
    return None


def _refused_override(run: Run, version: str) -> dict[str, str]:
    """Asks to serve the careless version all the same. It takes a second person, who says no."""
    asked = run.as_(BUILDER).trainer.CreatePromotionOverride(
        pb.CreatePromotionOverrideRequest(
            model_version=version,
            reason="It classifies best of all versions; the analysts ask for it.",
            request_id=run.journal.request_id("override-careless"),
        ),
        timeout=60,
    )
    refused = run.as_(APPROVER).trainer.RefusePromotionOverride(
        pb.RefusePromotionOverrideRequest(
            name=asked.name, reason="It has forgotten general English; analysts write reports with it."
        ),
        timeout=60,
    )
    run.say(
        f"override of it requested by {refused.requester}, [red]refused[/red] by {refused.refuser}: {refused.refuse_reason}"
    )
    return {
        "name": refused.name,
        "requester": refused.requester,
        "refuser": refused.refuser,
        "reason": refused.refuse_reason,
    }


def _promote(run: Run, report: pb.EvaluationReport) -> tuple[str, dict[str, str]]:
    """Promotes the careful version: by its gate, or by a recorded decision of two people where the gate cannot conclude."""
    version = run.result("finetune")["careful"]["version"]
    builder, approver = run.as_(BUILDER).trainer, run.as_(APPROVER).trainer
    override: dict[str, str] = {}
    if report.verdict != pb.VERDICT_PASSED:
        open_suites = ", ".join(s.suite for s in report.suites if s.verdict != pb.VERDICT_PASSED)
        asked = builder.CreatePromotionOverride(
            pb.CreatePromotionOverrideRequest(
                model_version=version,
                reason=f"Gate {_verdict(report.verdict)} on {open_suites or 'a suite that was not measured'}. "
                "Promoted for the analysts' trial; to be measured again on more items.",
                request_id=run.journal.request_id("override"),
            ),
            timeout=60,
        )
        approved = approver.ApprovePromotionOverride(
            pb.ApprovePromotionOverrideRequest(name=asked.name), timeout=60
        )
        run.say(
            f"gate of the careful one is [yellow]{_verdict(report.verdict)}[/yellow] ({open_suites}): "
            f"override requested by {approved.requester}, approved by {approved.approver}"
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
            request_id=run.journal.request_id("promote-careful"),
        ),
        timeout=60,
    )
    run.say(f"[green]promoted[/green] {promoted.name}, backed by report {promoted.report_digest}")
    return promoted.name, override


def _show(run: Run, way: str, report: pb.EvaluationReport) -> None:
    colour = COLOUR.get(report.verdict, "white")
    run.say(
        f"[bold]{way}[/bold] gate [{colour}]{_verdict(report.verdict)}[/{colour}], report {report.digest}"
    )
    for suite in report.suites:
        d = suite.difference
        colour = COLOUR.get(suite.verdict, "white")
        role = f"margin {suite.margin:g}" if suite.gated else "gain"
        run.say(
            f"  {suite.suite:15} base {suite.base.value:.3f}  tuned {suite.tuned.value:.3f}  better by {d.value:+.3f} "
            f"(at any n {suite.anytime_lower_bound:+.3f} to {suite.anytime_upper_bound:+.3f}; 95% at fixed n {d.lower:+.3f} to "
            f"{d.upper:+.3f}) n={d.sample_size}  {role}  [{colour}]{_verdict(suite.verdict)}[/{colour}]"
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
        f"timed from the start of the watch, {at_once} at a time, with Ray's start; the first scores the base too",
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
        "shown_above": suite.anytime_lower_bound,
        "shown_below": suite.anytime_upper_bound,
        "n": d.sample_size,
        "margin": suite.margin,
        "gated": suite.gated,
        "verdict": _verdict(suite.verdict),
    }


def _verdict(verdict: pb.Verdict.ValueType) -> str:
    return pb.Verdict.Name(verdict).removeprefix("VERDICT_").lower()
