"""`openledger model ...`: versions, evaluation, gate, promotion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openledger_cli import lists
from openledger_cli.commands.training import intent_rows, show_values, state_of, weighted_name
from openledger_cli.console import say
from openledger_cli.context import session
from openledger_cli.deferred import Deferred
from openledger_cli.lazy import group
from openledger_cli.options import Limit, RequestId, full_name, show_list
from openledger_cli.output import emit, emit_file, emit_rows, emit_table, lower_name, moment, shortened_words
from openledger_cli.progress import progress, rate

if TYPE_CHECKING:
    from openledger.trainer.v1 import trainer_pb2 as pb

    from openledger_cli.model_export import run as model_export
    from openledger_client import downloads, errors, paging, watches
    from openledger_ops import promotions
else:
    pb = Deferred("openledger.trainer.v1.trainer_pb2")
    downloads = Deferred("openledger_client.downloads")
    errors = Deferred("openledger_client.errors")
    model_export = Deferred("openledger_cli.model_export.run")
    paging = Deferred("openledger_client.paging")
    promotions = Deferred("openledger_ops.promotions")
    watches = Deferred("openledger_client.watches")

app = group("Model versions: evaluation, gate, promotion.")
Name = Annotated[str, typer.Argument(help="models/M/versions/N")]
Digest = Annotated[str, typer.Argument(help="Digest of the report, sha256:...")]


@app.command("list")
def list_versions(
    model: Annotated[str, typer.Argument(help="models/M or M; - for all")] = "-",
    filter: Annotated[str, lists.VERSIONS.filter_option()] = "",
    order_by: Annotated[str, lists.VERSIONS.order_option()] = "",
    limit: Limit = 50,
) -> None:
    """Lists a model's versions, or all, newest first."""
    show_list(
        session().client.trainer.ListModelVersions,
        pb.ListModelVersionsRequest(parent=full_name("models", model)),
        lambda page: page.model_versions,
        [
            ("version", lambda v: v.name),
            ("state", lambda v: version_state(v.state)),
            ("verdict", lambda v: verdict_of(v.verdict)),
            ("adapter", lambda v: v.adapter_digest),
            ("report", lambda v: v.report_digest or "-"),
        ],
        filter=filter,
        order_by=order_by,
        limit=limit,
    )


@app.command("get")
def get_version(name: Name) -> None:
    """Shows a version: what it is, its spec with each value's origin, its intent, its report and its history."""
    found = session().client.trainer.GetModelVersion(pb.GetModelVersionRequest(name=name))
    if session().as_json:
        emit(found)
        return
    emit_rows(
        ("version", found.name),
        ("state", version_state(found.state)),
        ("owner", found.owner),
        ("digest", found.digest),
        ("base", f"{found.base_model} {found.base_digest}"),
        ("adapter", found.adapter_digest),
        ("parent", found.parent or "the base"),
        (
            "snapshots",
            "\n".join(f"{weighted_name(each.snapshot, each.weight)} {each.root}" for each in found.snapshots),
        ),
        ("training manifest", found.training_manifest_digest),
        ("training run", found.training_run),
        ("compute", found.compute),
        *intent_rows(found.intent),
    )
    show_values(found.values)
    show_judgement(found)


@app.command()
def evaluate(
    name: Name,
    suite: Annotated[list[str], typer.Option(help="suite[=items]; may be repeated.")] = [],
    request_id: RequestId = "",
) -> None:
    """Evaluates a version against its base and shows the report."""
    stub = session().client.trainer
    evaluation = stub.EvaluateModelVersion(
        pb.EvaluateModelVersionRequest(name=name, suites=map(_suite, suite), request_id=request_id)
    )
    with progress("evaluating") as bar:
        for update in watches.watch(stub.WatchEvaluation, pb.WatchEvaluationRequest(name=evaluation.name)):
            evaluation, where = update.evaluation, update.progress
            if update.HasField("progress"):
                bar.at(
                    where.done,
                    where.total,
                    unit=where.unit,
                    stage=where.stage,
                    eta_s=where.eta_s,
                    detail=rate(update.items_per_s, "items"),
                )
    if evaluation.state != pb.RUN_STATE_SUCCEEDED:
        emit(
            evaluation,
            ("evaluation", evaluation.name),
            ("state", state_of(evaluation.state)),
            ("error", evaluation.error),
        )
        raise typer.Exit(1)
    report(evaluation.report_digest)


@app.command()
def report(digest: Digest) -> None:
    """Shows an evaluation report."""
    found = session().client.trainer.GetEvaluationReport(pb.GetEvaluationReportRequest(digest=digest))
    if session().as_json:
        emit(found)
        return
    show_report(found)


@app.command()
def outcomes(
    digest: Digest, out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")]
) -> None:
    """Writes the per-item outcomes behind a report to a file, after checking their digest against the report's."""
    stub = session().client.trainer
    found = stub.GetEvaluationReport(pb.GetEvaluationReportRequest(digest=digest))
    object_ = downloads.Download(
        stub.DownloadEvaluationOutcomes,
        pb.DownloadEvaluationOutcomesRequest(digest=digest),
        digest=found.outcomes_digest,
    )
    object_.save(out)
    emit_file(out, object_.received, object_.digest)


@app.command()
def export(
    name: Name,
    to: Annotated[Path, typer.Option(help="New folder to write.")],
    form: Annotated[
        str,
        typer.Option("--as", help="peft: the adapter alone. merged: one model, made with torch."),
    ] = "peft",
    with_base: Annotated[
        bool, typer.Option("--with-base", help="With --as peft: also writes the base, into FOLDER/base.")
    ] = False,
    float32: Annotated[
        bool,
        typer.Option("--float32", help="With --as merged: stores float32, whatever the base has."),
    ] = False,
) -> None:
    """Writes a version as a folder for transformers and PEFT, with a model card. GGUF: see docs/export.md."""
    forms = [each.value for each in model_export.Form]
    if form not in forms:
        right = f"{' or '.join(forms)}" + ("; docs/export.md says how to make GGUF" if form == "gguf" else "")
        raise typer.BadParameter(f"{form!r} is not {right}", param_hint="--as")
    if with_base and form != "peft":
        raise typer.BadParameter("is for --as peft; a merged model holds its base", param_hint="--with-base")
    if float32 and form != "merged":
        raise typer.BadParameter("is for --as merged", param_hint="--float32")
    client = session().client
    version = client.trainer.GetModelVersion(pb.GetModelVersionRequest(name=name))
    with progress("exporting") as bar:
        written = model_export.export(
            client,
            version,
            to,
            form=model_export.Form(form),
            with_base=with_base,
            float32=float32,
            progress=bar,
        )
    sizes = [(str(path), path.stat().st_size) for path in written]
    if session().as_json:
        print(
            json.dumps({"folder": str(to), "files": [{"file": file, "bytes": size} for file, size in sizes]})
        )
    else:
        emit_table(["file", "bytes"], sizes)


@app.command()
def promote(
    name: Name,
    override: Annotated[str, typer.Option(help="promotionOverrides/ULID")] = "",
    request_id: RequestId = "",
) -> None:
    """Serves a version; refused when its gate did not pass and no approved override is named."""
    request = pb.PromoteModelVersionRequest(name=name, override=override, request_id=request_id)
    found = session().client.trainer.PromoteModelVersion(request)
    emit(
        found,
        ("version", found.name),
        ("state", version_state(found.state)),
        ("verdict", verdict_of(found.verdict)),
        ("report", found.report_digest or "-"),
    )


@app.command()
def override(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why, at least 20 characters.")],
    request_id: RequestId = "",
) -> None:
    """Asks that a version be promoted against the gate; another person must approve."""
    request = pb.CreatePromotionOverrideRequest(model_version=name, reason=reason, request_id=request_id)
    _show_override(session().client.trainer.CreatePromotionOverride(request))


@app.command()
def approve(name: Annotated[str, typer.Argument(help="promotionOverrides/ULID")]) -> None:
    """Approves an override that another person asked for."""
    request = pb.ApprovePromotionOverrideRequest(name=name)
    _show_override(session().client.trainer.ApprovePromotionOverride(request))


@app.command()
def refuse(
    name: Annotated[str, typer.Argument(help="promotionOverrides/ULID")],
    reason: Annotated[str, typer.Option(help="Why, for the requester.")],
) -> None:
    """Refuses an override for good."""
    request = pb.RefusePromotionOverrideRequest(name=name, reason=reason)
    _show_override(session().client.trainer.RefusePromotionOverride(request))


@app.command("get-override")
def get_override(name: Annotated[str, typer.Argument(help="promotionOverrides/ULID")]) -> None:
    """Shows an override: of which report, who asked, who approved or refused."""
    request = pb.GetPromotionOverrideRequest(name=name)
    _show_override(session().client.trainer.GetPromotionOverride(request))


@app.command("overrides")
def list_overrides(
    model: Annotated[str, typer.Argument(help="models/M or M; - for all")] = "-",
    filter: Annotated[str, lists.OVERRIDES.filter_option()] = "",
    order_by: Annotated[str, lists.OVERRIDES.order_option()] = "",
    limit: Limit = 50,
) -> None:
    """Lists overrides, newest first."""
    show_list(
        session().client.trainer.ListPromotionOverrides,
        pb.ListPromotionOverridesRequest(parent=full_name("models", model)),
        lambda page: page.promotion_overrides,
        [
            ("override", lambda o: o.name),
            ("version", lambda o: o.model_version),
            ("state", lambda o: override_state(o.state)),
            ("requested by", lambda o: o.requester),
            ("approved by", lambda o: ", ".join(each.principal for each in o.approvals) or "-"),
            ("reason", lambda o: shortened_words(o.reason, 60)),
        ],
        filter=filter,
        order_by=order_by,
        limit=limit,
    )


@app.command()
def rollback(
    model: Annotated[str, typer.Argument(help="models/M or M")],
    reason: Annotated[str, typer.Option(help="Why; it is written in the promotion history.")],
    request_id: RequestId = "",
) -> None:
    """Serves the version again that was served before the present one; repeated, goes further back."""
    request = pb.RollbackModelRequest(name=full_name("models", model), reason=reason, request_id=request_id)
    found = session().client.trainer.RollbackModel(request)
    emit(
        found,
        ("promotion", found.name),
        ("served", found.model_version),
        ("retired", found.retired_version or "-"),
        ("back to", found.back_to),
        ("hash", found.hash),
    )


@app.command("promotions")
def list_promotions(
    model: Annotated[str, typer.Argument(help="models/M or M")],
    filter: Annotated[str, lists.PROMOTIONS.filter_option()] = "",
    order_by: Annotated[str, lists.PROMOTIONS.order_option()] = "",
    limit: Limit = 50,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Read all entries and recompute the chain of hashes. Exit code 1 if it is broken.",
        ),
    ] = False,
    known_hash: Annotated[
        str, typer.Option(help="With --verify: a hash that you kept earlier; it must be in the chain.")
    ] = "",
) -> None:
    """Lists what a model served, newest first: who decided, by which report, and why."""
    stub, name = session().client.trainer, full_name("models", model)
    if known_hash and not verify:
        raise typer.BadParameter("needs --verify", param_hint="--known-hash")
    if verify:
        _verify_promotions(stub, name, known_hash)
        return
    show_list(
        stub.ListPromotions,
        pb.ListPromotionsRequest(parent=name),
        lambda page: page.promotions,
        [
            ("promotion", lambda p: p.name),
            ("time", lambda p: moment(p.promote_time)),
            ("served", lambda p: p.model_version),
            ("why", lambda p: promotion_kind(p.kind)),
            ("people", lambda p: ", ".join(p.people)),
            ("reason", lambda p: shortened_words(p.reason, 60)),
            ("hash", lambda p: p.hash),
        ],
        filter=filter,
        order_by=order_by,
        limit=limit,
    )


def _verify_promotions(stub: Any, name: str, known_hash: str) -> None:
    """Reads the whole history, says whether its chain holds, and ends with exit code 1 where it does not."""
    history = [
        entry
        for page in paging.pages(stub.ListPromotions, pb.ListPromotionsRequest(parent=name))
        for entry in page.promotions
    ]
    history.reverse()
    served = stub.ListModelVersions(pb.ListModelVersionsRequest(parent=name, filter="state = PROMOTED"))
    wrong = promotions.broken(history, "".join(v.name for v in served.model_versions), known_hash)
    newest = history[-1].hash if history else ""
    if session().as_json:
        print(json.dumps({"entries": len(history), "newest_hash": newest, "broken": wrong}))
    elif wrong:
        say(("broken: ", "bold"), wrong)
    else:
        say(f"entries: {len(history)}, each with the hash of the one before; newest {newest or '-'}")
    if wrong:
        raise typer.Exit(1)


def show_judgement(found: pb.ModelVersion) -> None:
    """A version's verdict, report and history."""
    emit_rows(
        ("verdict", verdict_of(found.verdict)),
        ("report", found.report_digest or "none yet"),
        ("gate policy", f"{found.gate_policy} {found.policy_digest}".strip() or "-"),
        *(
            [("failed reports", "\n".join(map(_failed, found.failed_reports)))]
            if found.failed_reports
            else []
        ),
        ("history", "\n".join(map(_change, found.history)) or "-"),
    )
    if not found.report_digest:
        return
    request = pb.GetEvaluationReportRequest(digest=found.report_digest)
    try:
        show_report(session().client.trainer.GetEvaluationReport(request))
    except errors.PermissionDenied as error:
        say((f"the report cannot be shown: {error}", "dim"))


def show_report(found: pb.EvaluationReport) -> None:
    """A report as people read it."""
    say((f"report {found.digest}", "italic"))
    emit_table(
        [
            "suite",
            "base",
            "tuned",
            "gain, at any n",
            "difference (95%, fixed n)",
            "margin",
            "verdict",
            "items needed",
        ],
        [
            (
                suite.suite,
                suite.base,
                suite.tuned,
                f"{suite.anytime_lower_bound:+.3f} to {suite.anytime_upper_bound:+.3f}",
                suite.difference,
                suite.margin if suite.gated else "gain",
                verdict_of(suite.verdict),
                suite.items_needed or "",
            )
            for suite in found.suites
        ],
    )
    say(
        (
            "The gain at any number of items decides: scoring stops at the verdict. Of bits per byte it counts each text's"
            " change up to a bound, so it may lie beside the difference. The 95% intervals would hold for a number of"
            " items fixed in advance.",
            "dim",
        )
    )
    say("gate: ", (verdict_of(found.verdict), "bold"))
    for reason in found.reasons:
        say(f"  {reason}")


def _suite(given: str) -> pb.EvaluateModelVersionRequest.SuiteRequest:
    """`hellaswag=200` -> suite and items."""
    name, _, items = given.partition("=")
    try:
        return pb.EvaluateModelVersionRequest.SuiteRequest(suite=name, items=int(items or 0))
    except ValueError:
        raise typer.BadParameter(
            f"{given!r}: {items!r} is not a number of items", param_hint="--suite"
        ) from None


def _failed(found: pb.ModelVersion.FailedReport) -> str:
    return (
        f"{found.report_digest}: {f'lifted by {found.override}' if found.override else 'prevents promotion'}"
    )


def _change(found: pb.ModelVersion.StateChange) -> str:
    parts = (moment(found.change_time), version_state(found.state), found.principal, found.reason)
    return " ".join(part for part in parts if part)


def _show_override(found: pb.PromotionOverride) -> None:
    emit(
        found,
        ("override", found.name),
        ("version", found.model_version),
        ("report", found.report_digest),
        ("reason", found.reason),
        ("requested by", found.requester),
        ("approved by", ", ".join(each.principal for each in found.approvals) or "none yet"),
        ("state", f"{override_state(found.state)}, needs {found.people_needed} people with the requester"),
        *([("refused by", f"{found.refuser}: {found.refuse_reason}")] if found.refuser else []),
    )


def override_state(state: pb.OverrideState.ValueType) -> str:
    """`pending`."""
    return lower_name(pb.OverrideState.Name(state), "OVERRIDE_STATE_")


def promotion_kind(kind: pb.PromotionKind.ValueType) -> str:
    """`rolled back`."""
    return lower_name(pb.PromotionKind.Name(kind), "PROMOTION_KIND_").replace("_", " ")


def version_state(state: pb.ModelVersionState.ValueType) -> str:
    """`promoted`."""
    return lower_name(pb.ModelVersionState.Name(state), "MODEL_VERSION_STATE_")


def verdict_of(verdict: pb.Verdict.ValueType) -> str:
    """`inconclusive`; `not evaluated` without a report."""
    if verdict == pb.VERDICT_UNSPECIFIED:
        return "not evaluated"
    return lower_name(pb.Verdict.Name(verdict), "VERDICT_")
