"""Step 2: two fine-tunings of the same base on the same snapshot, each assessed before it runs."""

from __future__ import annotations

import time
from dataclasses import dataclass

from openledger.trainer.v1 import trainer_pb2 as pb
from openledger.trainer.v1.trainer_pb2_grpc import TrainerServiceStub

from openledger_client.errors import FailedPrecondition
from openledger_client.watches import watch
from threat_intel.people import APPROVER, BUILDER
from threat_intel.run import MODEL, Outcome, Run

GATE_POLICY = "gatePolicies/threat-intel-demo"
LABELS = {pb.SEVERITY_DANGER: "[red]danger [/red]", pb.SEVERITY_WARNING: "[yellow]warning[/yellow]"}


@dataclass(frozen=True)
class Way:
    """A way to fine-tune."""

    name: str
    spec: pb.TrainingSpec


def ways(run: Run) -> list[Way]:
    """Careless: a high rate and no rehearsal. Careful: what the platform suggests for everything but the length of the run."""
    scale = run.scale
    careless = pb.TrainingSpec(
        learning_rate=2e-3,
        steps=scale.steps,
        batch_size=scale.batch_size,
        seed=1,
        rehearsal=pb.RehearsalSpec(kind=pb.REHEARSAL_KIND_NONE),
    )
    careful = pb.TrainingSpec(steps=scale.steps, batch_size=scale.batch_size, seed=1)
    if scale.name == "small":
        careful.rehearsal.CopyFrom(
            pb.RehearsalSpec(kind=pb.REHEARSAL_KIND_SELF_GENERATED, sequences=8, tokens_each=16)
        )
    return [Way("careless", careless), Way("careful", careful)]


def execute(run: Run) -> Outcome:
    """Assesses and starts both ways, then follows them; how many run at a time is the platform's to decide."""
    outcome = Outcome()
    outcome.facts["gate_policy"] = _gate_policy(run)
    started = [_start(run, way) for way in ways(run)]
    for way, assessment, name in started:
        finished, last, wall_s = _watch(run, way.name, name)
        figures, source = outcome.figures, finished.name
        figures.add(f"{way.name}: final loss", round(last.loss, 4), "nats/token", source)
        if assessment.effective.rehearsal.kind != pb.REHEARSAL_KIND_NONE:  # it is measured on rehearsal
            figures.add(f"{way.name}: final KL to base on rehearsal", round(last.kl, 5), "nats/token", source)
        figures.add(f"{way.name}: training speed", round(last.tokens_per_s, 1), "tokens/s", source)
        figures.add(
            f"{way.name}: wall time",
            round(wall_s, 1),
            "s",
            f"timed from the start of the watch, {run.scale.jobs_at_once} at a time, {source}",
        )
        figures.add(
            f"{way.name}: findings", len(assessment.findings), "findings", "assessment before the run"
        )
        outcome.facts[way.name] = {
            "run": finished.name,
            "version": finished.model_version,
            "findings": [
                [pb.Severity.Name(f.severity), f.parameter, f.value, f.consequence, f.advice, f.source]
                for f in assessment.findings
            ],
            "values": {v.parameter: [v.value, v.origin] for v in assessment.values},
        }
        run.say(
            f"{finished.model_version}: loss {last.loss:.3f}, {last.tokens_per_s:,.0f} tokens/s, {wall_s:.0f} s"
        )
    return outcome


def _gate_policy(run: Run) -> dict[str, str]:
    """Makes the gate policy that both ways are held to: the platform's, at item counts that the demo can afford.

    Where it leaves a suite of the platform's out, it waits until a second person has approved.
    """
    builder, approver = run.as_(BUILDER).trainer, run.as_(APPROVER).trainer
    default = builder.GetGatePolicy(pb.GetGatePolicyRequest(name="gatePolicies/default"), timeout=60)
    spec = pb.GatePolicySpec()
    spec.CopyFrom(default.spec)
    del spec.suites[:]
    for suite in default.spec.suites:
        if suite.suite in run.scale.suites:
            added = spec.suites.add()
            added.CopyFrom(suite)
            added.items = run.scale.suites[suite.suite]
    policy = builder.CreateGatePolicy(
        pb.CreateGatePolicyRequest(
            parent=GATE_POLICY,
            spec=spec,
            reason="Item counts that one machine scores in minutes.",
            request_id=run.journal.request_id("gate-policy"),
        ),
        timeout=60,
    )
    if policy.state == pb.GATE_POLICY_STATE_PENDING:
        run.say(f"{policy.name} is looser than the platform's: {'; '.join(policy.loosens)}")
        policy = approver.ApproveGatePolicy(pb.ApproveGatePolicyRequest(name=policy.name), timeout=60)
        run.say(f"approved by {', '.join(approval.principal for approval in policy.approvals)}")
    run.say(f"gate policy {policy.name}: {policy.digest}")
    return {"name": policy.name, "digest": policy.digest}


def _start(run: Run, way: Way) -> tuple[Way, pb.TrainingAssessment, str]:
    """Shows what a way will lead to, and only then asks for its run; returns the run's name."""
    snapshots = [pb.WeightedSnapshot(snapshot=run.result("contribute")["snapshot"])]
    base = f"baseModels/{run.scale.base_model}"
    trainer = run.as_(BUILDER).trainer
    assessment = _assess(
        trainer, pb.AssessTrainingSpecRequest(base_model=base, snapshots=snapshots, spec=way.spec)
    )
    run.say(
        f"[bold]{way.name}[/bold]: learning rate {assessment.effective.learning_rate:g}, "
        f"rehearsal {pb.RehearsalKind.Name(assessment.effective.rehearsal.kind).removeprefix('REHEARSAL_KIND_').lower()}, "
        f"{assessment.effective.steps} steps of {assessment.effective.batch_size}"
    )
    for finding in assessment.findings:
        if finding.severity in LABELS:
            run.say(
                f"{LABELS[finding.severity]} {finding.parameter} = {finding.value}: {finding.consequence} {finding.advice}"
            )
    created = trainer.CreateTrainingRun(
        pb.CreateTrainingRunRequest(
            model=MODEL,
            base_model=base,
            snapshots=snapshots,
            spec=way.spec,
            intent=pb.Intent(
                purpose="Name the ATT&CK tactic of a reported procedure.", gate_policy=GATE_POLICY
            ),
            request_id=run.journal.request_id(way.name),
        ),
        timeout=60,
    )
    return way, assessment, created.name


def _assess(trainer: TrainerServiceStub, request: pb.AssessTrainingSpecRequest) -> pb.TrainingAssessment:
    """Assesses a spec; waits up to a minute for the sealed snapshot's event to reach the trainer."""
    for left in reversed(range(120)):
        try:
            return trainer.AssessTrainingSpec(request, timeout=60)
        except FailedPrecondition:
            if not left:
                raise
        time.sleep(0.5)  # there is no watch for this
    raise AssertionError("unreachable: the last try returns or raises")


def _watch(run: Run, title: str, name: str) -> tuple[pb.TrainingRun, pb.TrainingRunUpdate.StepMetrics, float]:
    """Follows a run to its end. Raises FailedPrecondition when it did not succeed."""
    begun = time.monotonic()
    training, last = pb.TrainingRun(name=name), pb.TrainingRunUpdate.StepMetrics()
    with run.progress(title, None) as bar:
        call = run.as_(BUILDER).trainer.WatchTrainingRun
        for update in watch(call, pb.WatchTrainingRunRequest(name=name)):
            if update.HasField("metrics"):
                last = update.metrics
            detail = f"loss {last.loss:.3f} {last.tokens_per_s:,.0f} tokens/s" if last.step else ""
            if update.HasField("progress"):
                bar.at(
                    update.progress.done,
                    update.progress.total or None,
                    detail,
                    f"{title}: {update.progress.stage or 'queued'}",
                )
            if update.HasField("run"):
                training = update.run
    if training.state != pb.RUN_STATE_SUCCEEDED:
        raise FailedPrecondition(
            f"{name} ended {pb.RunState.Name(training.state)}: {training.error}",
            reason="RUN_FAILED",
            subject=name,
        )
    return training, last, time.monotonic() - begun
