"""`openledger datanet import` and `suggest`: a user's own files into a Datanet."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openledger_cli.context import session
from openledger_cli.deferred import Deferred
from openledger_cli.options import full_name

if TYPE_CHECKING:
    from openledger.datanet.v1 import datanet_pb2 as pb

    from openledger_cli import importing as shown
    from openledger_client import importing
else:
    pb = Deferred("openledger.datanet.v1.datanet_pb2")
    shown = Deferred("openledger_cli.importing")
    importing = Deferred("openledger_client.importing")

STOPPED = 3
"""Exit code of an import that ended before the file's end and can be continued."""

File = Annotated[Path, typer.Argument(help="CSV, TSV, JSON lines or JSON array, also .gz; or Parquet.")]
Format = Annotated[
    str, typer.Option("--format", help="csv, jsonl, json or parquet; without it, by the file's ending.")
]
Encoding = Annotated[str, typer.Option(help="Of a text file, e.g. windows-1252 or utf-16.")]
Delimiter = Annotated[str, typer.Option(help="Of a CSV; without it, derived from the file.")]


def import_file(
    file: File,
    datanet: Annotated[str, typer.Option("--datanet", help="datanets/threat-intel or threat-intel")],
    contributor: Annotated[
        str, typer.Option("--contributor", help="The contributor's id, or datanets/D/contributors/C.")
    ] = "",
    map_: Annotated[
        list[str], typer.Option("--map", metavar="FIELD=COLUMN", help="Takes a field from another column.")
    ] = [],
    set_: Annotated[
        list[str],
        typer.Option("--set", metavar="FIELD=VALUE", help="Gives a field one value in all records."),
    ] = [],
    ignore_other_fields: Annotated[
        bool, typer.Option("--ignore-other-fields", help="Leaves out columns that no field takes.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Checks every row against the schema, and sends nothing.")
    ] = False,
    preview: Annotated[
        int, typer.Option(min=0, help="Rows to show as the model will read them, before anything is sent.")
    ] = 2,
    rejected: Annotated[
        Path | None, typer.Option(help="File for the rows that are not imported: JSON lines.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continues an import that was interrupted.")
    ] = False,
    progress_file: Annotated[
        Path | None,
        typer.Option(help="Where to note how far it is; without it, beside the file."),
    ] = None,
    format: Format = "",
    encoding: Encoding = "utf-8",
    delimiter: Delimiter = "",
) -> None:
    """Imports a file: each row becomes a record, rows that break a rule are named, and the others are sent.

    Exit code 0 when all rows were accepted, 1 when some were rejected, 2 when nothing was sent because of the arguments or the
    file, 3 when it stopped before the end: --resume then continues. Nothing is doubled, however often it is repeated.
    """
    name = full_name("datanets", datanet)
    if contributor or not dry_run:
        contributor = _contributor_of(name, contributor)
    if rejected is not None and rejected.resolve() == file.resolve():
        raise typer.BadParameter(f"{str(rejected)!r} is the file that is imported", param_hint="--rejected")
    with _usage():
        table = importing.open_table(file, format=format, encoding=encoding, delimiter=delimiter)
        if not ignore_other_fields:
            importing.check_chat(table)
        columns, constants = _pairs(map_, "--map"), _pairs(set_, "--set")
        schema = session().client.datanet.GetDatanet(pb.GetDatanetRequest(name=name)).schema
        mapping = importing.FieldMapping.of(
            schema,
            table,
            columns=columns,
            constants=constants,
            ignore_other_columns=ignore_other_fields,
        )
        report = shown.Report(table, _previewed(table, schema, mapping, preview), rejected)
        if dry_run:
            tally = shown.dry_run(table, schema, mapping, report)
        else:
            settings = [table.format, encoding, delimiter, columns, constants, ignore_other_fields]
            identity = importing.Identity.of(file, contributor, settings, rejected)
            note = importing.ProgressFile(progress_file or importing.ProgressFile.beside(file), identity)
            done = shown.continued(note, resume=resume)
            plan = importing.Plan(
                contributor=contributor,
                table=table,
                schema=schema,
                mapping=mapping,
                rejected=rejected,
                progress_file=note,
            )
            tally = shown.send(plan, done, report)
    if tally.refused_count:
        raise typer.Exit(1)


def suggest(
    file: File,
    licence: Annotated[str, typer.Option(help="What contributors consent to, e.g. CC-BY-4.0.")] = "",
    rows: Annotated[int, typer.Option(min=0, help="Rows to read; 0 reads all.")] = 100_000,
    format: Format = "",
    encoding: Encoding = "utf-8",
    delimiter: Delimiter = "",
) -> None:
    """Prints a Datanet's definition that is inferred from a file, with a comment for each guess.

    Save it, read it, and give it to `openledger datanet create --definition`.
    """
    with _usage():
        table = importing.open_table(file, format=format, encoding=encoding, delimiter=delimiter)
        importing.check_chat(table)
        found = importing.suggest(table, file.name, licence=licence, most_rows=rows)
    text = importing.to_toml(found)
    print(
        json.dumps(tomllib.loads(text), indent=2, ensure_ascii=False) if session().as_json else text, end=""
    )


def _contributor_of(datanet: str, given: str) -> str:
    """`acme` -> `datanets/claims/contributors/acme`."""
    if not given:
        raise typer.BadParameter("is needed unless --dry-run is given", param_hint="--contributor")
    found = full_name(f"{datanet}/contributors", given)
    if found.count("/") != 3:
        raise typer.BadParameter(f"{given!r} is not a contributor of {datanet}", param_hint="--contributor")
    return found


@contextmanager
def _usage() -> Iterator[None]:
    """A file or mapping that is wrong as a whole is a wrong argument: one line, exit code 2."""
    try:
        yield
    except importing.InputError as error:
        found = error.violations[0]
        option = "FILE" if found.field == "file" else f"--{found.field.replace('_', '-')}"
        raise typer.BadParameter(found.message, param_hint=option) from None


def _pairs(given: Sequence[str], option: str) -> dict[str, str]:
    """`["text=report"]` -> `{"text": "report"}`."""
    found: dict[str, str] = {}
    for each in given:
        field, equals, value = each.partition("=")
        if not equals or not field or field in found:
            why = (
                "is given twice"
                if field in found
                else "is not FIELD=COLUMN"
                if option == "--map"
                else "is not FIELD=VALUE"
            )
            raise typer.BadParameter(f"{each!r} {why}", param_hint=option)
        found[field] = value
    return found


def _previewed(
    table: importing.Table, schema: pb.RecordSchema, mapping: importing.FieldMapping, rows: int
) -> list[importing.Prepared]:
    """Returns the first rows that would be sent."""
    found: list[importing.Prepared] = []
    for row in importing.prepared(table, schema, mapping) if rows else ():
        if isinstance(row, importing.Prepared):
            found.append(row)
        if len(found) == rows or row.number >= 1000:
            break
    return found
