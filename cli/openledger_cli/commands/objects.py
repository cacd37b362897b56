"""`openledger objects`: what services need of the object store, and the removal of what none needs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from openledger_cli import lists
from openledger_cli.console import say
from openledger_cli.context import session
from openledger_cli.lazy import group
from openledger_cli.options import Limit
from openledger_cli.output import emit_table

if TYPE_CHECKING:
    from servicekit.objects import ObjectStore
    from servicekit.objects.collection import Collected

app = group(
    "The object store: which service needs what, and garbage collection.\n\n"
    "For operators: works on the store directly, with the rights of the user who runs it. Run it regularly, at any time;"
    " services may run or not.",
)

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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
    grace: Annotated[
        str, typer.Option(help="Keep what was stored less than this before the oldest list, like 12h or 7d.")
    ] = "1d",
    service: Annotated[
        list[str],
        typer.Option(help="Services that use this store; default is every service. May be repeated."),
    ] = [],
    object_store: StoreOption = "",
) -> None:
    """Removes objects that no service needs, directly or through another object.

    Refuses while a service has never published what it needs.
    """
    from openledger_ops.garbage import collect, grace_of

    found = collect(_store(object_store), service, grace_of(grace), dry_run)
    if session().as_json:
        print(json.dumps(_as_dict(found, dry_run), indent=2))
        return
    verb = "would be removed" if dry_run else "removed"
    gone = found.garbage if dry_run else [each for each in found.garbage if each.name in found.removed]
    say(f"checked what was stored before {found.before:%Y-%m-%d %H:%M:%S} UTC")
    say(f"needed    {len(found.needed)} objects, {_size(sum(e.size for e in found.needed))}")
    say(f"too young {len(found.young)} objects, {_size(sum(e.size for e in found.young))}")
    say(f"{verb} {len(gone)} objects, {_size(sum(e.size for e in gone))}")
    for digest in found.missing:
        say(f"missing   {digest}: a service needs it, and the store has no such object")


@app.command()
def references(
    filter: Annotated[str, lists.REFERENCES.filter_option()] = "",
    order_by: Annotated[str, lists.REFERENCES.order_option()] = "",
    limit: Limit = 0,
    object_store: StoreOption = "",
) -> None:
    """Lists how many objects each service needs, and as of when."""
    from openledger_ops.lists import references as page_of
    from servicekit.objects.references import read_all

    page = page_of(read_all(_store(object_store)), filter=filter, order_by=order_by, limit=limit)
    if session().as_json:
        shown = [
            {
                "name": each.name,
                "time": None if each.time is None else each.time.isoformat(),
                "objects": len(each.digests),
            }
            for each in page.items
        ]
        print(json.dumps(shown, indent=2))
        return
    rows = [
        (each.name, "pinned" if each.time is None else f"{each.time:%Y-%m-%d %H:%M:%S}", len(each.digests))
        for each in page.items
    ]
    emit_table(["name", "as of", "objects"], rows)
    if page.total_size > len(page.items):
        say(f"{len(page.items):,} of {page.total_size:,}; --limit shows more")


@app.command()
def pin(
    name: Annotated[str, typer.Argument(help="Name of the pin; the same name again replaces it.")],
    digest: Annotated[list[str], typer.Argument(help="sha256:<64 hex>")],
    object_store: StoreOption = "",
) -> None:
    """Keeps objects that no service needs, until `forget`."""
    from openledger_ops import garbage

    garbage.pin(_store(object_store), name, digest)


@app.command()
def forget(
    name: Annotated[str, typer.Argument(help="As `references` shows it.")],
    object_store: StoreOption = "",
) -> None:
    """Drops a pin, or the list of a service or database that is gone for good: what only it needed is collected."""
    from openledger_ops import garbage

    garbage.forget(_store(object_store), name)


def _store(location: str) -> ObjectStore:
    from openledger_ops.garbage import store_of

    return store_of(location, session().state_dir)


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
