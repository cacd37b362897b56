"""Step 5: each answer's contributor shares, spans and reliability."""

from __future__ import annotations

import time
from typing import Any

from openledger.attribution.v1 import attribution_pb2 as pb
from openledger.attribution.v1.attribution_pb2_grpc import AttributionServiceStub
from openledger.common.v1.estimate_pb2 import Estimate

from openledger_client.errors import FailedPrecondition, Unavailable
from openledger_client.paging import items
from threat_intel.people import AUDITOR
from threat_intel.run import Outcome, Run

PATIENCE_S = 900.0


def execute(run: Run) -> Outcome:
    """Waits until every answer is scored, shows totals and the naive ones."""
    outcome = Outcome()
    stub = run.as_(AUDITOR).attribution
    begun = time.monotonic()
    _await_index(run, stub)
    index_s = time.monotonic() - begun
    answers = run.result("answer")["answers"]
    begun = time.monotonic()
    scored: list[pb.Attribution] = []
    with run.progress("scored", len(answers)) as bar:
        for answer in answers:
            scored.append(
                stub.GetAttribution(
                    pb.GetAttributionRequest(name=answer["inference"], wait=True), timeout=600
                )
            )
            bar.at(len(scored), len(answers))
    wall_s = time.monotonic() - begun
    summary = stub.SummarizeAttributions(
        pb.SummarizeAttributionsRequest(model_version=run.result("evaluate")["careful"]), timeout=120
    )
    _show(run, scored, summary)
    figures, source = outcome.figures, f"{summary.answer_count} attribution records"
    for total in summary.contributors:
        who = total.contributor.rsplit("/", 1)[-1]
        figures.estimate(f"{who}: mean share", total.ppm, source)
        figures.estimate(f"{who}: mean share by naive normalisation", total.naive_ppm, source)
        figures.estimate(f"{who}: mean share by the lexical baseline", total.lexical_ppm, source)
    figures.estimate("unattributed, mean", summary.unattributed_ppm, source)
    figures.estimate("control records: mean share", summary.control_ppm, source)
    figures.estimate("control records: mean share by naive normalisation", summary.control_naive_ppm, source)
    figures.estimate(
        "half of the controls posing as a contributor: mean share", summary.control_check_ppm, source
    )
    figures.add("answers scored", len(scored), "answers", "counted")
    figures.add(
        "wait for the index after promotion",
        round(index_s, 1),
        "s",
        "timed; it is built from promotion or evaluation on",
    )
    figures.add("wait for the last score", round(wall_s, 1), "s", "timed; scoring runs beside the answers")
    outcome.facts["records"] = {a.inference: a.digest for a in scored}
    outcome.facts["totals"] = [_row(total) for total in summary.contributors]
    outcome.facts["unattributed_ppm"] = summary.unattributed_ppm.value
    outcome.facts["control"] = [summary.control_ppm.value, summary.control_naive_ppm.value]
    outcome.facts["control_check_ppm"] = summary.control_check_ppm.value
    return outcome


def _await_index(run: Run, stub: AttributionServiceStub) -> None:
    """Waits for the promoted version's index. Raises Unavailable when it failed or takes too long."""
    version = run.result("evaluate")["careful"]
    deadline = time.monotonic() + PATIENCE_S
    with run.progress("index", None) as bar:
        while time.monotonic() < deadline:
            found = items(
                stub.ListAttributionIndexes, pb.ListAttributionIndexesRequest(), lambda page: page.indexes
            )
            for index in found:
                if index.model_version != version:
                    continue
                if index.error:
                    raise FailedPrecondition(
                        f"index of {version}: {index.error}", reason="INDEX_FAILED", subject=version
                    )
                bar.at(index.progress.done, index.progress.total or None, index.progress.stage)
                if index.ready:
                    run.say(
                        f"index {index.digest}: {index.record_count:,} training records, {index.control_count:,} controls"
                    )
                    return
            time.sleep(0.5)  # there is no watch for this
    raise Unavailable(f"no index of {version} after {PATIENCE_S:.0f} s", reason="NO_INDEX")


def _show(run: Run, scored: list[pb.Attribution], summary: pb.AttributionSummary) -> None:
    attributed = [a for a in scored if any(share.ppm for share in a.shares)]
    run.say(f"{len(attributed)} of {len(scored)} answers have a part that can be attributed; one of them:")
    shown = (attributed or scored)[0]
    run.say(f"{shown.inference} is backed by report {shown.model.report_digest or '(base: none)'}")
    for share in shown.shares[:3]:
        run.say(
            f"  {share.contributor.rsplit('/', 1)[-1]:14} {share.ppm / 1e4:5.1f}% [{share.estimate.lower / 1e4:.1f}, "
            f"{share.estimate.upper / 1e4:.1f}]"
        )
    run.say(
        f"  unattributed {shown.unattributed_ppm / 1e4:.1f}% {shown.unattributed_reason}; "
        f"{len(shown.spans)} spans; split-half agreement {shown.reliability.split_half_agreement:.2f}"
    )
    run.say(
        f"mean over {summary.answer_count} answers of the adapter:   here [95%]            naive    lexical"
    )
    for total in summary.contributors:
        run.say(
            f"  {total.contributor.rsplit('/', 1)[-1]:30} {_percent(total.ppm)} {total.naive_ppm.value / 1e4:8.2f}% "
            f"{total.lexical_ppm.value / 1e4:8.2f}%"
        )
    run.say(
        f"  {'control records':30} {_percent(summary.control_ppm)} {summary.control_naive_ppm.value / 1e4:8.2f}%"
    )
    run.say(
        f"  [dim]half of the controls, posing as a contributor, would have got "
        f"{summary.control_check_ppm.value / 1e4:.2f}%: gradients show relevance, the training manifest shows use[/dim]"
    )
    run.say(f"  {'unattributed':30} {_percent(summary.unattributed_ppm)}")


def _percent(share: Estimate) -> str:
    """A mean share of parts per million with its interval, in columns."""
    interval = f"[{share.lower / 1e4:.2f}, {share.upper / 1e4:.2f}]"
    return f"{share.value / 1e4:6.2f}% {interval:16}"


def _row(total: pb.AttributionSummary.ContributorTotal) -> dict[str, Any]:
    return {
        "contributor": total.contributor.rsplit("/", 1)[-1],
        "ppm": total.ppm.value,
        "lower": total.ppm.lower,
        "upper": total.ppm.upper,
        "naive_ppm": total.naive_ppm.value,
        "lexical_ppm": total.lexical_ppm.value,
        "records": total.record_count,
        "clusters": total.cluster_count,
    }
