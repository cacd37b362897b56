"""`openledger datanet ...`: contribute, review, seal."""

from __future__ import annotations

import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.json_format import ParseDict, ParseError
from openledger.datanet.v1 import datanet_pb2 as pb
from rich.progress import Progress

from openledger_cli.context import session
from openledger_cli.output import as_dict, console, emit, emit_list
from openledger_cli.paging import every
from servicekit.errors import InvalidArgument

app = typer.Typer(help="Contributed, reviewed, sealed data.", no_args_is_help=True)
contributors = typer.Typer(help="Who contributes.", no_args_is_help=True)
app.add_typer(contributors, name="contributor")
Parent = Annotated[str, typer.Argument(metavar="DATANET", help="datanets/threat-intel or threat-intel")]


def full_name(datanet: str) -> str:
    """`threat-intel` or `datanets/threat-intel` -> `datanets/threat-intel`."""
    return datanet if datanet.startswith("datanets/") else f"datanets/{datanet}"


@app.command()
def create(
    datanet_id: str,
    definition: Annotated[
        Path,
        typer.Option(
            "--definition", "-d", exists=True, dir_okay=False, help="TOML with the Datanet's fields."
        ),
    ],
    request_id: str = "",
) -> None:
    """Creates a Datanet from a TOML definition (docs/data.md has an example)."""
    try:
        content = ParseDict(tomllib.loads(definition.read_text()), pb.Datanet())
    except (tomllib.TOMLDecodeError, ParseError, UnicodeDecodeError) as error:
        raise InvalidArgument("definition", "readable", f"{definition}: {error}") from None
    request = pb.CreateDatanetRequest(datanet_id=datanet_id, datanet=content, request_id=request_id)
    _show(session().connections.datanet.CreateDatanet(request, timeout=session().connections.deadline_s))


@app.command()
def get(datanet: Parent) -> None:
    """Shows one Datanet."""
    _show(
        session().connections.datanet.GetDatanet(
            pb.GetDatanetRequest(name=full_name(datanet)), timeout=session().connections.deadline_s
        )
    )


@app.command("list")
def list_datanets() -> None:
    """Lists Datanets."""
    stub = session().connections.datanet
    found = every(lambda token: stub.ListDatanets(pb.ListDatanetsRequest(page_token=token)), "datanets")
    emit_list(
        found,
        [
            ("name", lambda d: d.name),
            ("title", lambda d: d.display_name),
            ("owner", lambda d: d.owner),
            ("licence", lambda d: d.licence),
        ],
    )


@contributors.command("add")
def add_contributor(
    datanet: Parent,
    contributor_id: str,
    principal: Annotated[str, typer.Option(help="Principal that may contribute under this name.")],
    licence: Annotated[str, typer.Option(help="Licence consented to.")],
    display_name: str = "",
    payout_address: Annotated[str, typer.Option(help="EVM address that claims rewards.")] = "",
) -> None:
    """Registers a contributor."""
    request = pb.RegisterContributorRequest(
        parent=full_name(datanet),
        contributor_id=contributor_id,
        contributor=pb.Contributor(
            principal=principal,
            display_name=display_name or contributor_id,
            payout_address=payout_address,
            consent_licence=licence,
        ),
    )
    found = session().connections.datanet.RegisterContributor(
        request, timeout=session().connections.deadline_s
    )
    emit(
        found, ("name", found.name), ("principal", found.principal), ("payout address", found.payout_address)
    )


@contributors.command("list")
def list_contributors(datanet: Parent) -> None:
    """Lists a Datanet's contributors."""
    stub = session().connections.datanet
    found = every(
        lambda token: stub.ListContributors(
            pb.ListContributorsRequest(parent=full_name(datanet), page_token=token)
        ),
        "contributors",
    )
    emit_list(
        found,
        [
            ("name", lambda c: c.name),
            ("principal", lambda c: c.principal),
            ("accepted", lambda c: c.accepted_count),
            ("rejected", lambda c: c.rejected_count),
            ("payout address", lambda c: c.payout_address),
        ],
    )


@app.command()
def contribute(
    contributor: Annotated[str, typer.Argument(help="datanets/D/contributors/C")],
    file: Annotated[Path, typer.Argument(help="JSON lines, one record a line; - for standard input.")],
) -> None:
    """Streams records in. A rejected record names its rule and does not end the stream."""
    data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    lines = [line for line in data.split(b"\n") if line.strip()]

    def requests() -> Iterator[pb.ContributeRequest]:
        for number, line in enumerate(lines, start=1):
            yield pb.ContributeRequest(contributor=contributor, sequence=number, content=line)

    states: Counter[str] = Counter()
    refused: list[pb.ContributeResponse] = []
    with Progress(console=console, disable=session().as_json) as progress:
        task = progress.add_task("contributing", total=len(lines))
        for response in session().connections.datanet.Contribute(requests()):
            progress.advance(task)
            state = "present already" if response.already_present else pb.RecordState.Name(response.state)
            states[state.removeprefix("RECORD_STATE_").lower()] += 1
            if response.HasField("status"):
                refused.append(response)
    if session().as_json:
        emit_list(refused, [])
        return
    for response in refused:
        console.print(f"record {response.sequence}: [red]{response.rule}[/red] {response.status.message}")
    console.print(", ".join(f"{count:,} {state}" for state, count in sorted(states.items())) or "no records")


@app.command()
def records(datanet: Parent, state: str = "", limit: int = 50) -> None:
    """Lists records, optionally of one state: pending, accepted, rejected, withdrawn."""
    stub = session().connections.datanet
    wanted = _state(state) if state else pb.RECORD_STATE_UNSPECIFIED
    found = every(
        lambda token: stub.ListRecords(
            pb.ListRecordsRequest(parent=full_name(datanet), state=wanted, page_token=token)
        ),
        "records",
        limit,
    )
    emit_list(
        found,
        [
            ("record", lambda r: r.name.rsplit("/", 1)[-1][:16]),
            ("contributor", lambda r: _last(r.contributor)),
            ("state", lambda r: pb.RecordState.Name(r.state).removeprefix("RECORD_STATE_").lower()),
            ("rule", lambda r: r.rule),
            ("content", lambda r: r.content.decode()[:80]),
        ],
    )


@app.command()
def review(
    record: str, decision: Annotated[str, typer.Argument(help="accepted or rejected")], reason: str = ""
) -> None:
    """Accepts or rejects a record."""
    request = pb.ReviewRecordRequest(name=record, decision=_state(decision), reason=reason)
    found = session().connections.datanet.ReviewRecord(request, timeout=session().connections.deadline_s)
    emit(found, ("record", found.name), ("state", pb.RecordState.Name(found.state)))


@app.command()
def withdraw(record: str, reason: str = "") -> None:
    """Withdraws a record from the next snapshot."""
    found = session().connections.datanet.WithdrawRecord(
        pb.WithdrawRecordRequest(name=record, reason=reason), timeout=session().connections.deadline_s
    )
    emit(found, ("record", found.name), ("state", pb.RecordState.Name(found.state)))


@app.command()
def seal(datanet: Parent, held_out: float = 0.2, control: float = 0.1, request_id: str = "") -> None:
    """Seals the accepted records into the next snapshot."""
    request = pb.SealSnapshotRequest(
        parent=full_name(datanet), held_out_fraction=held_out, control_fraction=control, request_id=request_id
    )
    show_snapshot(session().connections.datanet.SealSnapshot(request, timeout=300))


@app.command()
def snapshot(name: Annotated[str, typer.Argument(help="datanets/D/snapshots/N")]) -> None:
    """Shows one snapshot."""
    show_snapshot(
        session().connections.datanet.GetSnapshot(
            pb.GetSnapshotRequest(name=name), timeout=session().connections.deadline_s
        )
    )


@app.command()
def snapshots(datanet: Parent) -> None:
    """Lists a Datanet's snapshots."""
    stub = session().connections.datanet
    found = every(
        lambda token: stub.ListSnapshots(
            pb.ListSnapshotsRequest(parent=full_name(datanet), page_token=token)
        ),
        "snapshots",
    )
    emit_list(
        found,
        [
            ("name", lambda s: s.name),
            ("records", lambda s: s.record_count),
            ("clusters", lambda s: s.cluster_count),
            ("root", lambda s: s.root),
        ],
    )


def show_snapshot(found: pb.Snapshot) -> None:
    """A snapshot as people read it."""
    emit(
        found,
        ("snapshot", found.name),
        ("root", found.root),
        ("records", found.record_count),
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


def _show(found: pb.Datanet) -> None:
    emit(
        found,
        ("name", found.name),
        ("title", found.display_name),
        ("owner", found.owner),
        ("licence", found.licence),
        ("fields", ", ".join(f.name for f in found.schema.fields)),
        ("policy", as_dict(found.policy)),
    )


def _state(text: str) -> pb.RecordState.ValueType:
    try:
        return pb.RecordState.Value(f"RECORD_STATE_{text.upper()}")
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not pending, accepted, rejected or withdrawn") from None


def _last(name: str) -> str:
    return name.rsplit("/", 1)[-1]
