"""`openledger objects`: what services need of the object store, and the removal of what none needs."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

import typer
from rich.table import Table

from openledger_cli.context import session
from openledger_cli.output import console
from servicekit.errors import InvalidArgument, NotFound
from servicekit.object_collection import Collected, collect
from servicekit.objects import ObjectStore
from servicekit.references import forget as forget_list
from servicekit.references import pin as pin_objects
from servicekit.references import read_all

app = typer.Typer(
    no_args_is_help=True,
    help="The object store: who needs what of it, and garbage collection.\n\n"
    "A tool for operators: it works on the store itself, with the rights of whoever runs it, and asks no service. Run it"
    " regularly, at any time; services need not stop.",
)

SERVICES = ("datanet", "trainer", "inference", "attribution", "chain_relay")
_UNITS_S = {"h": 3600, "d": 86_400}

StoreOption = Annotated[
    str,
    typer.Option(
        "--object-store",
        envvar="OPENLEDGER_OBJECT_STORE",
        help="Folder or s3://bucket/prefix; default <state dir>/objects.",
        show_default=False,
    ),
]


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    grace: Annotated[
        str, typer.Option(help="Keep what was put less than this before the oldest list, like 12h or 7d.")
    ] = "1d",
    service: Annotated[
        list[str], typer.Option(help="Services that use this store; default is all five. May be repeated.")
    ] = [],
    object_store: StoreOption = "",
) -> None:
    """Removes objects that no service needs, nor any object that one needs; refuses when a service never said."""
    found = collect(_store(object_store), service or SERVICES, _duration(grace), dry_run)
    if session().as_json:
        console.print_json(data=_as_dict(found, dry_run))
        return
    verb = "would be removed" if dry_run else "removed"
    gone = found.garbage if dry_run else [each for each in found.garbage if each.name in found.removed]
    console.print(f"looked at what was put before {found.before:%Y-%m-%d %H:%M:%S} UTC")
    console.print(f"needed    {len(found.needed)} objects, {_size(sum(e.size for e in found.needed))}")
    console.print(f"too young {len(found.young)} objects, {_size(sum(e.size for e in found.young))}")
    console.print(f"{verb} {len(gone)} objects, {_size(sum(e.size for e in gone))}")
    for digest in found.missing:
        console.print(f"missing   {digest}: a service needs it, and the store has no such object")


@app.command()
def references(object_store: StoreOption = "") -> None:
    """Lists who needs how many objects, and since when that is known."""
    table = Table("name", "as of", "objects")
    for published in read_all(_store(object_store)):
        time = "pinned" if published.time is None else f"{published.time:%Y-%m-%d %H:%M:%S}"
        table.add_row(published.name, time, str(len(published.digests)))
    console.print(table)


@app.command()
def pin(
    name: Annotated[str, typer.Argument(help="Of the pin; the same name again replaces it.")],
    digest: Annotated[list[str], typer.Argument(help="sha256:<64 hex>")],
    object_store: StoreOption = "",
) -> None:
    """Keeps objects that no service needs, until `forget`."""
    if re.fullmatch(r"[a-z][a-z0-9-]{0,62}", name) is None:
        raise InvalidArgument("name", "name.format", "must be lower case letters, digits and -", name)
    store = _store(object_store)
    for each in digest:
        if not store.exists(each):
            raise NotFound("object", each)
    pin_objects(store, f"pin-{name}", digest)


@app.command()
def forget(
    name: Annotated[str, typer.Argument(help="As `references` shows it.")],
    object_store: StoreOption = "",
) -> None:
    """Drops a pin, or the list of a service or database that is gone for good: what only it needed is collected."""
    if not forget_list(_store(object_store), name):
        raise NotFound("list of references", name)


def _store(location: str) -> ObjectStore:
    state = session().connections.state_dir
    return ObjectStore(location or str(state / "objects"), cache=state / "objects-cache")


def _duration(text: str) -> timedelta:
    match = re.fullmatch(r"(\d+)([hd])", text)
    if match is None:
        raise InvalidArgument(
            "--grace", "duration", "must be a number of hours or days, like 12h or 7d", text
        )
    return timedelta(seconds=int(match[1]) * _UNITS_S[match[2]])


def _as_dict(found: Collected, dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "before": found.before.isoformat(),
        "needed": len(found.needed),
        "young": len(found.young),
        "garbage": sorted(each.name for each in found.garbage),
        "removed": sorted(found.removed),
        "missing": list(found.missing),
        "leftovers": found.leftovers,
    }


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
