"""`openledger gate ...`: the verdict for scripts, and gate policies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from openledger_cli import lists
from openledger_cli.console import say
from openledger_cli.context import session
from openledger_cli.deferred import Deferred
from openledger_cli.lazy import group
from openledger_cli.options import Limit, RequestId, full_name, show_list
from openledger_cli.output import emit, emit_table, lower_name, moment

if TYPE_CHECKING:
    from openledger.trainer.v1 import trainer_pb2 as pb

    from evalstats import policy as policies
    from openledger_cli import gate as gates
    from openledger_client import downloads, errors, watches
else:
    pb = Deferred("openledger.trainer.v1.trainer_pb2")
    policies = Deferred("evalstats.policy")
    gates = Deferred("openledger_cli.gate")
    downloads = Deferred("openledger_client.downloads")
    errors = Deferred("openledger_client.errors")
    watches = Deferred("openledger_client.watches")

app = group("The gate: verdicts for scripts, and the policies that models are held to.")
Version = Annotated[str, typer.Argument(help="gatePolicies/P/versions/N")]
PolicyFile = Annotated[Path, typer.Option("--policy", help="Gate policy, a JSON file.")]
_EXIT_CODES = {"pass": 0, "failed": 1, "inconclusive": 2, "incomplete": 2}
_CANNOT_DECIDE = 3
_USAGE_ERROR = 2


class _CheckCommand(TyperCommand):
    """A command whose usage errors are "no verdict": typer ends them with 2, which here means inconclusive."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except Exception as error:  # typer keeps the class of usage errors to itself
            if getattr(error, "exit_code", None) == _USAGE_ERROR:
                vars(error)["exit_code"] = _CANNOT_DECIDE
            raise


@app.command("check", cls=_CheckCommand)
def check(
    version: Annotated[str, typer.Argument(help="models/M/versions/N; none with --report")] = "",
    policy: Annotated[
        Path | None, typer.Option("--policy", help="Gate policy, a JSON file; else the one of the report.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Offline: canonical JSON of a report.")] = None,
    outcomes: Annotated[
        Path | None, typer.Option(help="Offline: the outcomes that the report names.")
    ] = None,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Evaluate the version by its policy first, and wait.")
    ] = False,
) -> None:
    """Recomputes a report and judges it. Exit code 0: pass, 1: fail, 2: inconclusive or incomplete, 3: no verdict."""
    if bool(version) == bool(report) or bool(report) != bool(outcomes) or (evaluate and not version):
        say("name a version, or both --report and --outcomes; --evaluate needs a version")
        raise typer.Exit(_CANNOT_DECIDE)
    try:
        given = _read_policy(policy) if policy else None
        found = (
            gates.judge(report.read_bytes(), outcomes.read_bytes(), given)
            if report and outcomes
            else _judge_version(version, given, evaluate)
        )
    except (OSError, gates.CannotJudge, policies.InvalidPolicy, errors.OpenLedgerError) as error:
        say(("no verdict: ", "bold"), str(error))
        raise typer.Exit(_CANNOT_DECIDE) from None
    if session().as_json:
        print(json.dumps(found.to_json(), ensure_ascii=False))
    else:
        say(("gate: ", "bold"), found.verdict, f", policy {found.policy_digest}")
        for finding in found.findings:
            say(f"  {finding}")
    raise typer.Exit(_EXIT_CODES[found.verdict])


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="gatePolicies/P or P")],
    policy: PolicyFile,
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    request_id: RequestId = "",
) -> None:
    """Adds a version of a gate policy; one that loosens something waits for another person."""
    request = pb.CreateGatePolicyRequest(
        parent=full_name("gatePolicies", name),
        spec=_spec(_policy_of(policy)),
        reason=reason,
        request_id=request_id,
    )
    _show(session().client.trainer.CreateGatePolicy(request))


@app.command()
def approve(name: Version) -> None:
    """Approves a version that another person created."""
    _show(session().client.trainer.ApproveGatePolicy(pb.ApproveGatePolicyRequest(name=name)))


@app.command()
def refuse(name: Version, reason: Annotated[str, typer.Option(help="Why, for the requester.")]) -> None:
    """Refuses a version for good."""
    _show(session().client.trainer.RefuseGatePolicy(pb.RefuseGatePolicyRequest(name=name, reason=reason)))


@app.command("get")
def get_policy(
    name: Annotated[
        str, typer.Argument(help="gatePolicies/P/versions/N; gatePolicies/P or P for the active one")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write the policy to this file as well, for gate check."),
    ] = None,
) -> None:
    """Shows a gate policy: suites, margins, items, people, and who decided on it."""
    request = pb.GetGatePolicyRequest(name=full_name("gatePolicies", name))
    found = session().client.trainer.GetGatePolicy(request)
    if out is not None:
        out.write_bytes(found.canonical_json)
    _show(found)


@app.command("list")
def list_policies(
    policy: Annotated[str, typer.Argument(help="gatePolicies/P or P; - for all")] = "-",
    filter: Annotated[str, lists.GATE_POLICIES.filter_option()] = "",
    order_by: Annotated[str, lists.GATE_POLICIES.order_option()] = "",
    limit: Limit = 50,
) -> None:
    """Lists versions of gate policies, newest first."""
    show_list(
        session().client.trainer.ListGatePolicies,
        pb.ListGatePoliciesRequest(parent=full_name("gatePolicies", policy)),
        lambda page: page.gate_policies,
        [
            ("version", lambda p: p.name),
            ("state", lambda p: policy_state(p.state)),
            ("created by", lambda p: p.requester),
            ("approved by", lambda p: ", ".join(each.principal for each in p.approvals) or "-"),
            ("loosens", lambda p: "; ".join(p.loosens) or "nothing"),
            ("digest", lambda p: p.digest),
        ],
        filter=filter,
        order_by=order_by,
        limit=limit,
    )


def policy_state(state: pb.GatePolicyState.ValueType) -> str:
    """`active`."""
    return lower_name(pb.GatePolicyState.Name(state), "GATE_POLICY_STATE_")


def _judge_version(version: str, policy: policies.GatePolicy | None, evaluate: bool) -> gates.Judgement:
    """Judges the report that stands for a version, from its bytes and its outcomes."""
    stub = session().client.trainer
    if evaluate:
        _evaluate(stub, version)
    found = stub.GetModelVersion(pb.GetModelVersionRequest(name=version))
    if not found.report_digest:
        raise gates.CannotJudge(f"{version} has no evaluation report; --evaluate makes one")
    report = stub.GetEvaluationReport(pb.GetEvaluationReportRequest(digest=found.report_digest))
    outcomes = downloads.Download(
        stub.DownloadEvaluationOutcomes,
        pb.DownloadEvaluationOutcomesRequest(digest=report.digest),
        digest=report.outcomes_digest,
    ).read()
    return gates.judge(report.canonical_json, outcomes, policy)


def _evaluate(stub: Any, version: str) -> None:
    evaluation = stub.EvaluateModelVersion(pb.EvaluateModelVersionRequest(name=version))
    for update in watches.watch(stub.WatchEvaluation, pb.WatchEvaluationRequest(name=evaluation.name)):
        evaluation = update.evaluation
    if evaluation.state != pb.RUN_STATE_SUCCEEDED:
        raise gates.CannotJudge(f"{evaluation.name} did not succeed: {evaluation.error}")


def _read_policy(path: Path) -> policies.GatePolicy:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise gates.CannotJudge(f"{path}: not JSON: {error}") from None
    return policies.GatePolicy.from_json(content)


def _policy_of(path: Path) -> policies.GatePolicy:
    """As `_read_policy`, for commands whose every error is one of usage."""
    try:
        return _read_policy(path)
    except (OSError, gates.CannotJudge, policies.InvalidPolicy) as error:
        raise typer.BadParameter(str(error), param_hint="--policy") from None


def _spec(policy: policies.GatePolicy) -> pb.GatePolicySpec:
    return pb.GatePolicySpec(
        suites=[
            pb.GatePolicySpec.Suite(
                suite=suite.name,
                role=pb.SuiteRole.Value(f"SUITE_ROLE_{suite.role.name}"),
                margin=suite.margin,
                items=suite.items,
                rule=suite.rule,
                version=suite.version,
            )
            for suite in policy.suites
        ],
        alpha=policy.alpha,
        seed=policy.seed,
        people=pb.GatePolicySpec.People(
            promote=policy.people.promote, override=policy.people.override, loosen=policy.people.loosen
        ),
    )


def _show(found: pb.GatePolicy) -> None:
    people = found.spec.people
    emit(
        found,
        ("gate policy", found.name),
        ("digest", found.digest),
        ("state", policy_state(found.state)),
        ("loosens", "\n".join(found.loosens) or "nothing"),
        ("created by", f"{found.requester} {moment(found.create_time)}"),
        ("approved by", ", ".join(each.principal for each in found.approvals) or "-"),
        *([("refused by", f"{found.refuser}: {found.refuse_reason}")] if found.refuser else []),
        ("reason", found.reason or "-"),
        ("alpha, seed", f"{found.spec.alpha:g}, {found.spec.seed}"),
        ("people", f"{people.promote} to promote, {people.override} to override, {people.loosen} to loosen"),
    )
    if session().as_json:
        return
    emit_table(
        ["suite", "role", "margin", "most items", "rule", "version"],
        [
            (
                suite.suite,
                lower_name(pb.SuiteRole.Name(suite.role), "SUITE_ROLE_"),
                suite.margin,
                suite.items,
                suite.rule or "the data's",
                suite.version or "any",
            )
            for suite in found.spec.suites
        ],
    )
