"""What `openledger datanet import` shows while it runs and when it ends."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import typer
from openledger.datanet.v1 import datanet_pb2 as pb

from openledger_cli.commands.datanet_import import STOPPED
from openledger_cli.console import printable, say
from openledger_cli.context import session
from openledger_cli.output import shortened, shortened_words
from openledger_cli.progress import Progress, progress
from openledger_client.errors import OpenLedgerError
from openledger_client.importing import (
    FieldMapping,
    Importer,
    InputError,
    Plan,
    Prepared,
    ProgressFile,
    Refusal,
    Table,
    Tally,
    as_json,
    place,
    prepared,
    rendered,
)

_SHOWN = 20
"""Rejected rows that are shown; `--rejected` has all."""
_SHOWN_CHARACTERS = 1000
"""Of a previewed prompt or completion."""


@dataclass
class Report:
    """What is shown about one import."""

    table: Table
    previewed: list[Prepared]
    rejected: Path | None
    """The file of rejected rows."""
    refused: list[Refusal] = field(default_factory=list)
    """The first `_SHOWN`."""

    def begin(self, schema: pb.RecordSchema) -> None:
        """Shows how the file is read, and the first rows as a model will read them."""
        if session().as_json:
            return
        read_as = [self.table.format, *filter(None, [self.table.details])]
        say(f"{', '.join(read_as)}; columns: {shortened_words(', '.join(self.table.columns), 500)}")
        for row in self.previewed:
            prompt, completion = rendered(schema, row.record)
            say((f"{place(row)} as the model will read it:", "bold"))
            say(shortened(prompt, _SHOWN_CHARACTERS), (shortened(completion, _SHOWN_CHARACTERS), "green"))

    def refuse(self, refusal: Refusal) -> None:
        """Keeps a rejected row, if it is one of the first."""
        if len(self.refused) < _SHOWN:
            self.refused.append(refusal)

    def at(self, bar: Progress, tally: Tally) -> None:
        """Shows how far it is."""
        detail = _rows(tally.rows) + (f", {tally.refused_count:,} rejected" if tally.refused else "")
        if self.table.unit == "bytes":
            total = -(-self.table.total // 1000)
            done = total if tally.end >= self.table.total else tally.end // 1000
            bar.at(done, total, unit="kilobytes", detail=detail)
        else:
            bar.at(tally.end, self.table.total, unit="rows", detail=detail)

    def complete(self, bar: Progress, tally: Tally) -> None:
        """Shows that all of it is done, blank lines at the end included."""
        self.at(bar, replace(tally, end=self.table.total))

    def end(self, tally: Tally, schema: pb.RecordSchema, **more: Any) -> None:
        """Shows the result."""
        if session().as_json:
            print(json.dumps(self._as_dict(tally, schema) | more, indent=2, ensure_ascii=False))
            return
        for each in self.refused:
            where = f", {each.field}" if each.field else ""
            say(f"{place(each)}{where}: ", (each.rule, "red"), f" {each.reason}")
        if tally.refused_count > len(self.refused):
            all_of_them = (
                f"{self.rejected} has all" if self.rejected else "--rejected FILE writes all to a file"
            )
            say(f"and {tally.refused_count - len(self.refused):,} more; {all_of_them}")

    def _as_dict(self, tally: Tally, schema: pb.RecordSchema) -> dict[str, Any]:
        previewed = [
            dict(zip(("prompt", "completion"), rendered(schema, each.record), strict=True))
            for each in self.previewed
        ]
        return {
            "rows": tally.rows,
            "accepted": tally.accepted,
            "pending": tally.pending,
            "already_present": tally.present,
            "rejected": tally.refused_count,
            "rejected_by_rule": dict(tally.refused),
            "first_rejected": [json.loads(as_json(each)) for each in self.refused],
            "preview": previewed,
        }


def continued(note: ProgressFile, *, resume: bool) -> Tally | None:
    """Returns where to continue; None for the first row. Raises InputError if the progress file is of another import."""
    if not resume:
        if note.path.exists() and not session().as_json:
            say(
                "An earlier import of this file was interrupted; this one begins again. --resume would continue it."
            )
        return None
    done = note.read()
    if not session().as_json:
        say(
            f"continues after row {done.rows:,}"
            if done
            else "no import of this file was interrupted: begins with the first row"
        )
    return done


def dry_run(table: Table, schema: pb.RecordSchema, mapping: FieldMapping, report: Report) -> Tally:
    """Checks all rows, sends nothing, and returns how many would be sent (`accepted`) and rejected."""
    report.begin(schema)
    tally = Tally()
    with ExitStack() as stack:
        file = None
        if report.rejected is not None:
            try:
                file = stack.enter_context(report.rejected.open("wb"))
            except OSError as error:
                message = f"{report.rejected} cannot be written: {error.strerror}"
                raise InputError.of("rejected", "writable", message) from None
        bar = stack.enter_context(progress("checking"))
        for row in prepared(table, schema, mapping):
            if isinstance(row, Refusal):
                report.refuse(row)
                if file is not None:
                    file.write(as_json(row))
                refused = {**tally.refused, row.rule: tally.refused.get(row.rule, 0) + 1}
                tally = replace(tally, refused=refused)
            else:
                tally = replace(tally, accepted=tally.accepted + 1)
            tally = replace(tally, rows=row.number, end=row.end)
            report.at(bar, tally)
        report.complete(bar, tally)
    report.end(tally, schema, dry_run=True)
    if not session().as_json:
        say(f"{_rows(tally.rows)}: {tally.accepted:,} would be sent, {_refused(tally)}. Nothing was sent.")
        say("The service also applies its quality rules when a record arrives.")
    return tally


def send(plan: Plan, done: Tally | None, report: Report) -> Tally:
    """Imports, and returns the tally of the whole file.

    Where it stops before the end, it says how far it is and ends the command.
    """
    report.begin(plan.schema)
    with progress("importing") as bar:
        importer = Importer(plan, done=done, refused=report.refuse, moved=lambda tally: report.at(bar, tally))
        stopped: BaseException | None = None
        try:
            report.complete(bar, importer.run(session().client.datanet))
        except (OpenLedgerError, KeyboardInterrupt) as error:
            if _is_about_the_arguments(error, importer.tally, done):
                raise
            stopped = error
    tally = importer.tally
    report.end(tally, plan.schema, complete=stopped is None)
    if not session().as_json:
        new = f"{tally.accepted:,} accepted" + (f", {tally.pending:,} pending" if tally.pending else "")
        say(f"{_rows(tally.rows)}: {new}, {tally.present:,} present already, {_refused(tally)}")
    if stopped is not None:
        _say_stopped(stopped, tally)
        raise typer.Exit(130 if isinstance(stopped, KeyboardInterrupt) else STOPPED)
    return tally


def _is_about_the_arguments(error: BaseException, tally: Tally, done: Tally | None) -> bool:
    """Returns whether an error came before anything was done: to continue would meet it again."""
    if isinstance(error, InputError):
        return tally == (done or Tally())
    return isinstance(error, OpenLedgerError) and not tally.rows


def _say_stopped(error: BaseException, tally: Tally) -> None:
    why = "interrupted"
    if isinstance(error, InputError):
        why = error.violations[0].message
    elif isinstance(error, OpenLedgerError):
        why = f"{error.code.name}: {error}"
    message = f"openledger: stopped after row {tally.rows:,}: {why}"
    print(printable(message), file=sys.stderr)
    print("Continue it by the same command with --resume.", file=sys.stderr)


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _refused(tally: Tally) -> str:
    rules = ", ".join(f"{rule} {count:,}" for rule, count in sorted(tally.refused.items()))
    return f"{tally.refused_count:,} rejected" + (f" ({rules})" if rules else "")
