"""`openledger datanet ...`: contribute, review, seal."""

from __future__ import annotations

import json
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openledger_cli import lists
from openledger_cli.commands import datanet_import
from openledger_cli.console import say, warn
from openledger_cli.context import session
from openledger_cli.deferred import Deferred
from openledger_cli.lazy import group
from openledger_cli.options import Limit, RequestId, full_name, show_list
from openledger_cli.output import as_dict, duration, emit, emit_file, lower_name, moment, shortened
from openledger_cli.progress import Progress, progress

if TYPE_CHECKING:
    from google.protobuf import json_format
    from openledger.common.v1 import list_pb2
    from openledger.datanet.v1 import datanet_pb2 as pb

    from openledger_cli import reviewing
    from openledger_client import downloads, errors, sealing, uploads, watches
    from openledger_client.importing import suggesting
else:
    json_format = Deferred("google.protobuf.json_format")
    list_pb2 = Deferred("openledger.common.v1.list_pb2")
    pb = Deferred("openledger.datanet.v1.datanet_pb2")
    downloads = Deferred("openledger_client.downloads")
    errors = Deferred("openledger_client.errors")
    sealing = Deferred("openledger_client.sealing")
    suggesting = Deferred("openledger_client.importing.suggesting")
    reviewing = Deferred("openledger_cli.reviewing")
    uploads = Deferred("openledger_client.uploads")
    watches = Deferred("openledger_client.watches")

app = group("Contributed, reviewed, sealed data.")
contributors = group("Who contributes.")
app.add_typer(contributors, name="contributor")
app.command("import")(datanet_import.import_file)
app.command("suggest")(datanet_import.suggest)
operations = group("Sealings: what runs, waits, succeeded and failed.")
app.add_typer(operations, name="operation")
Parent = Annotated[str, typer.Argument(metavar="DATANET", help="datanets/threat-intel or threat-intel")]
Operation = Annotated[str, typer.Argument(help="datanets/D/sealOperations/ULID")]


@app.command()
def create(
    datanet_id: str,
    definition: Annotated[
        Path,
        typer.Option(
            "--definition", "-d", exists=True, dir_okay=False, help="TOML with the Datanet's fields."
        ),
    ],
    request_id: RequestId = "",
) -> None:
    """Creates a Datanet from a TOML definition (docs/data.md has an example)."""
    try:
        content = json_format.ParseDict(tomllib.loads(definition.read_text()), pb.Datanet())
    except (tomllib.TOMLDecodeError, json_format.ParseError, UnicodeDecodeError) as error:
        raise errors.InvalidArgument.of("definition", "readable", f"{definition}: {error}") from None
    _warn_of_what_stays(content)
    request = pb.CreateDatanetRequest(datanet_id=datanet_id, datanet=content, request_id=request_id)
    _show(session().client.datanet.CreateDatanet(request))


def _warn_of_what_stays(content: pb.Datanet) -> None:
    """Nothing changes a Datanet's licence and description later, and contributors consent to them."""
    if content.licence == suggesting.NO_LICENCE:
        warn(f"licence is {suggesting.NO_LICENCE}, which names none; it never changes after this")
    if not content.description.strip():
        warn("description is empty; it never changes after this")


@app.command()
def get(datanet: Parent) -> None:
    """Shows one Datanet."""
    _show(session().client.datanet.GetDatanet(pb.GetDatanetRequest(name=full_name("datanets", datanet))))


@app.command("list")
def list_datanets(
    filter: Annotated[str, lists.DATANETS.filter_option()] = "",
    order_by: Annotated[str, lists.DATANETS.order_option()] = "",
    limit: Limit = 50,
) -> None:
    """Lists Datanets."""
    show_list(
        session().client.datanet.ListDatanets,
        pb.ListDatanetsRequest(),
        lambda page: page.datanets,
        [
            ("name", lambda d: d.name),
            ("title", lambda d: d.display_name),
            ("owner", lambda d: d.owner),
            ("licence", lambda d: d.licence),
        ],
        filter=filter,
        order_by=order_by,
        limit=limit,
    )


@contributors.command("add")
def add_contributor(
    datanet: Parent,
    contributor_id: str,
    principal: Annotated[str, typer.Option(help="Principal that may contribute under this name.")],
    licence: Annotated[str, typer.Option(help="Licence consented to.")],
    display_name: str = "",
    payout_address: Annotated[str, typer.Option(help="EVM address that claims rewards.")] = "",
    request_id: RequestId = "",
) -> None:
    """Registers a contributor."""
    request = pb.RegisterContributorRequest(
        parent=full_name("datanets", datanet),
        contributor_id=contributor_id,
        contributor=pb.Contributor(
            principal=principal,
            display_name=display_name or contributor_id,
            payout_address=payout_address,
            consent_licence=licence,
        ),
        request_id=request_id,
    )
    found = session().client.datanet.RegisterContributor(request)
    emit(
        found, ("name", found.name), ("principal", found.principal), ("payout address", found.payout_address)
    )


@contributors.command("list")
def list_contributors(
    datanet: Parent,
    filter: Annotated[str, lists.CONTRIBUTORS.filter_option()] = "",
    order_by: Annotated[str, lists.CONTRIBUTORS.order_option()] = "",
    limit: Limit = 50,
) -> None:
    """Lists a Datanet's contributors."""
    show_list(
        session().client.datanet.ListContributors,
        pb.ListContributorsRequest(parent=full_name("datanets", datanet)),
        lambda page: page.contributors,
        [
            ("name", lambda c: c.name),
            ("principal", lambda c: c.principal),
            ("accepted", lambda c: c.accepted_count),
            ("rejected", lambda c: c.rejected_count),
            ("payout address", lambda c: c.payout_address),
        ],
        filter=filter,
        order_by=order_by,
        limit=limit,
    )


@app.command()
def contribute(
    contributor: Annotated[str, typer.Argument(help="datanets/D/contributors/C")],
    file: Annotated[Path, typer.Argument(help="JSON lines, one record a line; - for standard input.")],
) -> None:
    """Streams records in. A rejected record names its rule and does not end the stream.

    Exit code 1 when no record was accepted.
    """
    numbered = list(_lines(file))
    lines = [line for _, line in numbered]
    states: Counter[str] = Counter()
    refused: list[pb.ContributeResponse] = []
    with progress("contributing") as bar:
        for response in uploads.contribute(session().client.datanet, contributor, lines):
            states[_outcome(response)] += 1
            if response.HasField("status"):
                refused.append(response)
            bar.at(response.sequence, len(lines), unit="records")
    places = [numbered[response.sequence - 1][0] for response in refused]
    if session().as_json:
        found = [{**as_dict(each), "line": line} for each, line in zip(refused, places, strict=True)]
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        for response, line in zip(refused, places, strict=True):
            say(f"line {line}: ", (response.rule, "red"), f" {response.status.message}")
        say(", ".join(f"{count:,} {state}" for state, count in sorted(states.items())) or "no records")
    if len(refused) == len(lines):
        raise typer.Exit(1)


@app.command()
def records(
    datanet: Parent,
    state: Annotated[str, typer.Option(help="pending, accepted, rejected or withdrawn")] = "",
    contributor: Annotated[str, typer.Option(help="datanets/D/contributors/C")] = "",
    filter: Annotated[str, lists.RECORDS.filter_option()] = "",
    order_by: Annotated[str, lists.RECORDS.order_option()] = "",
    limit: Limit = 50,
) -> None:
    """Lists records, oldest first."""
    show_list(
        session().client.datanet.ListRecords,
        pb.ListRecordsRequest(
            parent=full_name("datanets", datanet),
            state=_state(state, "--state") if state else pb.RECORD_STATE_UNSPECIFIED,
            contributor=contributor,
            view=list_pb2.VIEW_FULL,
        ),
        lambda page: page.records,
        [
            ("record", lambda r: r.name),
            ("contributor", lambda r: r.contributor.rsplit("/", 1)[-1]),
            ("state", lambda r: lower_name(pb.RecordState.Name(r.state), "RECORD_STATE_")),
            ("rule", lambda r: "DAMAGED" if r.damaged else r.rule),
            ("content", lambda r: shortened(r.content.decode(errors="replace"), 80)),
        ],
        filter=filter,
        order_by=order_by,
        limit=limit,
    )


_ABOUT_CONTRIBUTOR = "Not the text but who sent it is the reason: others may send the text."


@app.command()
def review(
    decision: Annotated[str, typer.Argument(help="accepted or rejected")],
    records: Annotated[
        list[str] | None, typer.Argument(help="datanets/D/records/SHA256, one or several")
    ] = None,
    from_: Annotated[
        Path | None, typer.Option("--from", help="File with one record a line; - for standard input.")
    ] = None,
    pending_of: Annotated[
        str, typer.Option(help="Datanet whose pending records are decided, all or those of --filter.")
    ] = "",
    filter: Annotated[str, lists.RECORDS.filter_option()] = "",
    reason: Annotated[str, typer.Option(help="Why; a rejection needs it.")] = "",
    about_contributor: Annotated[bool, typer.Option(help=_ABOUT_CONTRIBUTOR)] = False,
    request_id: RequestId = "",
) -> None:
    """Accepts or rejects records: those named, those in a file, or the pending ones of a Datanet.

    Exit code 1 when a record cannot be decided; the others are.
    """
    state = _state(decision, "DECISION")
    if sum(bool(source) for source in (records, from_, pending_of)) != 1:
        raise typer.BadParameter("name records, or give --from or --pending-of", param_hint="RECORDS")
    if filter and not pending_of:
        raise typer.BadParameter("needs --pending-of", param_hint="--filter")
    stub = session().client.datanet
    if records and len(records) == 1:
        request = pb.ReviewRecordRequest(
            name=records[0],
            decision=state,
            reason=reason,
            request_id=request_id,
            subject=_subject(about_contributor),
        )
        _show_record(stub.ReviewRecord(request))
        return
    if request_id:
        raise typer.BadParameter("is for one record", param_hint="--request-id")
    if pending_of:
        names = reviewing.pending(stub, full_name("datanets", pending_of), filter)
    else:
        names = iter(reviewing.names_in(from_) if from_ else records or [])
    if not reviewing.decide(stub, names, state, reason, _subject(about_contributor)):
        raise typer.Exit(1)


@app.command()
def withdraw(
    record: Annotated[str, typer.Argument(help="datanets/D/records/SHA256")],
    reason: str = "",
    about_contributor: Annotated[bool, typer.Option(help=_ABOUT_CONTRIBUTOR)] = False,
) -> None:
    """Withdraws a record from the next snapshot."""
    request = pb.WithdrawRecordRequest(name=record, reason=reason, subject=_subject(about_contributor))
    _show_record(session().client.datanet.WithdrawRecord(request))


def _subject(about_contributor: bool) -> pb.DecisionSubject.ValueType:
    return pb.DECISION_SUBJECT_CONTRIBUTOR if about_contributor else pb.DECISION_SUBJECT_TEXT


@app.command()
def seal(
    datanet: Parent,
    held_out: float = 0.2,
    control: float = 0.1,
    request_id: RequestId = "",
    wait: Annotated[bool, typer.Option(help="Follow it until it ends.")] = True,
) -> None:
    """Seals the accepted records into the next snapshot, and shows how far it is.

    The service continues when this command ends earlier, and after a restart of its own.
    """
    request = pb.SealSnapshotRequest(
        parent=full_name("datanets", datanet),
        held_out_fraction=held_out,
        control_fraction=control,
        request_id=request_id,
    )
    started = session().client.datanet.SealSnapshot(request)
    if wait:
        watch_operation(started.name)
    else:
        _show_operation(started)


@operations.command("watch")
def watch_operation(name: Operation) -> None:
    """Follows a sealing until it ends, and shows its snapshot. Exit code 1 when there is none."""
    last = pb.SealOperation(name=name)
    stub = session().client.datanet
    try:
        with progress("sealing") as bar:
            for last in watches.watch(stub.WatchSealOperation, pb.WatchSealOperationRequest(name=name)):
                _show_progress(bar, last)
    except KeyboardInterrupt:
        for line in (
            f"the service continues to seal: {name}",
            f"follow it: openledger datanet operation watch {name}",
            f"end it:    openledger datanet operation cancel {name}",
        ):
            typer.echo(line, err=True)
        raise typer.Exit(130) from None
    if sealing.error_of(last) is not None:
        _show_operation(last)
        raise typer.Exit(1)
    show_snapshot(stub.GetSnapshot(pb.GetSnapshotRequest(name=last.snapshot)))


@operations.command("get")
def get_operation(name: Operation) -> None:
    """Shows a sealing."""
    _show_operation(session().client.datanet.GetSealOperation(pb.GetSealOperationRequest(name=name)))


@operations.command("list")
def list_operations(
    datanet: Parent,
    filter: Annotated[str, lists.SEAL_OPERATIONS.filter_option()] = "",
    order_by: Annotated[str, lists.SEAL_OPERATIONS.order_option()] = "",
    limit: Limit = 50,
) -> None:
    """Lists a Datanet's sealings, newest first."""
    show_list(
        session().client.datanet.ListSealOperations,
        pb.ListSealOperationsRequest(parent=full_name("datanets", datanet)),
        lambda page: page.seal_operations,
        [
            ("operation", lambda o: o.name),
            ("state", _operation_state),
            ("at", _where),
            ("snapshot", lambda o: o.snapshot.rsplit("/", 1)[-1]),
            ("by", lambda o: o.principal),
        ],
        filter=filter,
        order_by=order_by,
        limit=limit,
    )


@operations.command("cancel")
def cancel_operation(name: Operation) -> None:
    """Cancels a sealing: no snapshot results from it. One that has ended stays as it is."""
    _show_operation(session().client.datanet.CancelSealOperation(pb.CancelSealOperationRequest(name=name)))


@app.command()
def snapshot(name: Annotated[str, typer.Argument(help="datanets/D/snapshots/N")]) -> None:
    """Shows one snapshot."""
    show_snapshot(session().client.datanet.GetSnapshot(pb.GetSnapshotRequest(name=name)))


@app.command()
def snapshots(
    datanet: Parent,
    filter: Annotated[str, lists.SNAPSHOTS.filter_option()] = "",
    order_by: Annotated[str, lists.SNAPSHOTS.order_option()] = "",
    limit: Limit = 50,
) -> None:
    """Lists a Datanet's snapshots, newest first."""
    show_list(
        session().client.datanet.ListSnapshots,
        pb.ListSnapshotsRequest(parent=full_name("datanets", datanet)),
        lambda page: page.snapshots,
        [
            ("name", lambda s: s.name),
            ("records", lambda s: s.record_count),
            ("clusters", lambda s: s.cluster_count),
            ("root", lambda s: s.root),
        ],
        filter=filter,
        order_by=order_by,
        limit=limit,
    )


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="datanets/D/snapshots/N")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")],
    part: Annotated[str, typer.Option(help="records (JSON lines) or manifest (JSON)")] = "records",
) -> None:
    """Writes a snapshot's records or manifest to a file, after checking its digest against the snapshot's."""
    parts = {"records": pb.SNAPSHOT_PART_RECORDS, "manifest": pb.SNAPSHOT_PART_MANIFEST}
    if part not in parts:
        raise typer.BadParameter(f"{part!r} is not {' or '.join(parts)}", param_hint="--part")
    stub = session().client.datanet
    found = stub.GetSnapshot(pb.GetSnapshotRequest(name=name))
    object_ = downloads.Download(
        stub.DownloadSnapshot,
        pb.DownloadSnapshotRequest(name=name, part=parts[part]),
        digest=found.records_digest if part == "records" else found.manifest_digest,
    )
    object_.save(out)
    emit_file(out, object_.received, object_.digest)


def show_snapshot(found: pb.Snapshot) -> None:
    """A snapshot as people read it."""
    emit(
        found,
        ("snapshot", found.name),
        ("root", found.root),
        ("sealed", moment(found.seal_time)),
        ("records", found.record_count),
        ("contributors", f"{found.contributor_count:,}"),
        (
            "clusters",
            f"{found.cluster_count:,}, {found.near_duplicate_cluster_count:,} of them near-duplicates",
        ),
        (
            "splits",
            ", ".join(f"{s.split} {s.record_count:,} in {s.cluster_count:,} clusters" for s in found.splits),
        ),
        ("rejected", ", ".join(f"{r.rule} {r.record_count:,}" for r in found.rejected) or "none"),
    )


def _show_progress(bar: Progress, found: pb.SealOperation) -> None:
    at = found.progress
    if found.state == pb.SEAL_OPERATION_STATE_PENDING:
        bar.at(0, 0, stage="waiting", detail=f"place {found.queue_position} in the queue")
    elif at.stage:
        bar.at(at.done, at.total, unit=at.unit, stage=at.stage, eta_s=at.eta_s)


def _show_operation(found: pb.SealOperation) -> None:
    error = sealing.error_of(found)
    emit(
        found,
        ("operation", found.name),
        ("state", _operation_state(found)),
        ("at", _where(found) or "-"),
        ("snapshot", found.snapshot or "-"),
        *([("error", f"{error.reason}: {error.message}")] if error else []),
        ("requested by", found.principal),
        ("requested", moment(found.create_time)),
        ("started", moment(found.start_time)),
        ("ended", moment(found.end_time)),
        ("attempts", found.attempt_count),
    )


def _operation_state(found: pb.SealOperation) -> str:
    return lower_name(pb.SealOperationState.Name(found.state), "SEAL_OPERATION_STATE_")


def _where(found: pb.SealOperation) -> str:
    """`place 2 in the queue`, `write, 3,000 of 10,000 records, 4 s left`."""
    at = found.progress
    if found.queue_position:
        return f"place {found.queue_position} in the queue"
    if not at.stage or found.state == pb.SEAL_OPERATION_STATE_SUCCEEDED:
        return ""
    left = f", {duration(at.eta_s)} left" if at.eta_s else ""
    return f"{at.stage}, {at.done:,} of {at.total:,} {at.unit}s{left}"


def _show(found: pb.Datanet) -> None:
    emit(
        found,
        ("name", found.name),
        ("title", found.display_name),
        ("owner", found.owner),
        ("licence", found.licence),
        ("fields", ", ".join(f.name for f in found.schema.fields)),
        *_policy_rows(found.policy),
    )


def _policy_rows(policy: pb.QualityPolicy) -> list[tuple[str, object]]:
    """The rules that records must pass; what the Datanet leaves to the platform is `default`."""
    review = lower_name(pb.ReviewMode.Name(policy.review_mode), "REVIEW_MODE_")
    contamination = lower_name(pb.ContaminationCheck.Name(policy.contamination_check), "CONTAMINATION_CHECK_")
    rows: list[tuple[str, object]] = [
        ("review", review),
        ("minimum words", policy.min_words or "default"),
        ("rejected personal data", ", ".join(policy.personal_data_entities) or "default"),
        ("records per contributor", policy.max_records_per_contributor or "no maximum"),
        ("near-duplicates from", policy.near_duplicate_threshold or "default"),
        ("contamination check", contamination),
        ("evaluation items", policy.gate_items_digest or "default"),
    ]
    return [(label, "default" if value == "unspecified" else value) for label, value in rows]


def _show_record(found: pb.Record) -> None:
    emit(
        found,
        ("record", found.name),
        ("state", lower_name(pb.RecordState.Name(found.state), "RECORD_STATE_")),
    )


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yields each record with the number of its line; blank lines are counted, not sent."""
    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise typer.BadParameter(
            f"{str(file)!r} cannot be read: {error.strerror}", param_hint="FILE"
        ) from None
    return ((number, line) for number, line in enumerate(data.split(b"\n"), 1) if line.strip())


def _outcome(response: pb.ContributeResponse) -> str:
    if response.already_present:
        return "present already"
    return lower_name(pb.RecordState.Name(response.state), "RECORD_STATE_")


def _state(text: str, option: str) -> pb.RecordState.ValueType:
    try:
        return pb.RecordState.Value(f"RECORD_STATE_{text.upper()}")
    except ValueError:
        known = ", ".join(name.removeprefix("RECORD_STATE_").lower() for name in pb.RecordState.keys()[1:])
        raise typer.BadParameter(f"{text!r} is not one of {known}", param_hint=option) from None
