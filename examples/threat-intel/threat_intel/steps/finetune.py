"""Step 2: two fine-tunings of the same base on the same snapshot, each assessed before it runs."""

from __future__ import annotations

import time
from dataclasses import dataclass

import grpc
from openledger.trainer.v1 import trainer_pb2 as pb
from openledger.trainer.v1.trainer_pb2_grpc import TrainerServiceStub

from servicekit.errors import FailedPrecondition, from_rpc_error
from threat_intel.people import BUILDER
from threat_intel.telling import MODEL, Outcome, Telling

LOOK = {pb.SEVERITY_DANGER: "[red]danger [/red]", pb.SEVERITY_WARNING: "[yellow]warning[/yellow]"}


@dataclass(frozen=True)
class Way:
    """A way to fine-tune."""

    name: str
    spec: pb.TrainingSpec


def ways(telling: Telling) -> list[Way]:
    """Careless: a high rate and no replay. Careful: what the platform suggests for everything but the length of the run."""
    scale = telling.scale
    careless = pb.TrainingSpec(
        learning_rate=2e-3,
        steps=scale.steps,
        batch_size=scale.batch_size,
        seed=1,
        replay=pb.ReplaySpec(kind=pb.REPLAY_KIND_NONE),
    )
    careful = pb.TrainingSpec(steps=scale.steps, batch_size=scale.batch_size, seed=1)
    if scale.name == "small":
        careful.replay.CopyFrom(
            pb.ReplaySpec(kind=pb.REPLAY_KIND_SELF_GENERATED, sequences=8, tokens_each=16)
        )
    return [Way("careless", careless), Way("careful", careful)]


def run(telling: Telling) -> Outcome:
    """Assesses and starts both ways, then follows them; how many run at a time is the platform's to decide."""
    outcome = Outcome()
    started = [_start(telling, way) for way in ways(telling)]
    for way, assessment, name in started:
        finished, last, wall_s = _watch(telling, way.name, name)
        figures, source = outcome.figures, finished.name
        figures.add(f"{way.name}: final loss", round(last.loss, 4), "nats/token", source)
        if assessment.effective.replay.kind != pb.REPLAY_KIND_NONE:  # it is measured on replay
            figures.add(f"{way.name}: final KL to base on replay", round(last.kl, 5), "nats/token", source)
        figures.add(f"{way.name}: training speed", round(last.tokens_per_s, 1), "tokens/s", source)
        figures.add(
            f"{way.name}: wall time",
            round(wall_s, 1),
            "s",
            f"timed from when it was followed, {telling.scale.jobs_at_once} at a time, {source}",
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
        telling.say(
            f"{finished.model_version}: loss {last.loss:.3f}, {last.tokens_per_s:,.0f} tokens/s, {wall_s:.0f} s"
        )
    return outcome


def _start(telling: Telling, way: Way) -> tuple[Way, pb.TrainingAssessment, str]:
    """Shows what a way will lead to, and only then asks for its run; returns the run's name."""
    snapshots = [pb.WeightedSnapshot(snapshot=telling.result("contribute")["snapshot"])]
    base = f"baseModels/{telling.scale.base_model}"
    trainer = telling.as_(BUILDER).trainer
    assessment = _assess(
        trainer, pb.AssessTrainingSpecRequest(base_model=base, snapshots=snapshots, spec=way.spec)
    )
    telling.say(
        f"[bold]{way.name}[/bold]: learning rate {assessment.effective.learning_rate:g}, "
        f"replay {pb.ReplayKind.Name(assessment.effective.replay.kind).removeprefix('REPLAY_KIND_').lower()}, "
        f"{assessment.effective.steps} steps of {assessment.effective.batch_size}"
    )
    for finding in assessment.findings:
        if finding.severity in LOOK:
            telling.say(
                f"{LOOK[finding.severity]} {finding.parameter} = {finding.value}: {finding.consequence} {finding.advice}"
            )
    created = trainer.CreateTrainingRun(
        pb.CreateTrainingRunRequest(
            model=MODEL,
            base_model=base,
            snapshots=snapshots,
            spec=way.spec,
            intent=pb.Intent(purpose="Name the ATT&CK tactic of a reported procedure."),
            request_id=telling.journal.request_id(way.name),
        ),
        timeout=60,
    )
    return way, assessment, created.name


def _assess(trainer: TrainerServiceStub, request: pb.AssessTrainingSpecRequest) -> pb.TrainingAssessment:
    """Assesses a spec; waits up to a minute for the sealed snapshot's event to reach the trainer."""
    for left in reversed(range(120)):
        try:
            return trainer.AssessTrainingSpec(request, timeout=60)
        except grpc.RpcError as error:
            if not isinstance(from_rpc_error(error), FailedPrecondition) or not left:
                raise
        time.sleep(0.5)  # a poll of a public door: a client has no other way to know
    raise AssertionError("unreachable: the last try returns or raises")


def _watch(
    telling: Telling, title: str, name: str
) -> tuple[pb.TrainingRun, pb.TrainingRunUpdate.StepMetrics, float]:
    """Follows a run to its end. Raises FailedPrecondition when it did not succeed."""
    begun = time.monotonic()
    run, last = pb.TrainingRun(name=name), pb.TrainingRunUpdate.StepMetrics()
    with telling.bar(title, None) as bar:
        for update in telling.as_(BUILDER).trainer.WatchTrainingRun(pb.WatchTrainingRunRequest(name=name)):
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
                run = update.run
    if run.state != pb.RUN_STATE_SUCCEEDED:
        raise FailedPrecondition(
            "RUN_FAILED", f"{name} ended {pb.RunState.Name(run.state)}: {run.error}", subject=name
        )
    return run, last, time.monotonic() - begun
