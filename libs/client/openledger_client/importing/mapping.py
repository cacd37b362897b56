"""Which column of a file becomes which field of a Datanet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from openledger.datanet.v1 import datanet_pb2 as pb

from openledger_client.importing.rows import InputError, NotText, Refusal, Row, Table, listed


@dataclass(frozen=True, kw_only=True)
class FieldMapping:
    """Makes a record of a row. `FieldMapping.of` checks it against a file and a schema first."""

    columns: Mapping[str, str]
    """The column of each field that comes from the file."""
    constants: Mapping[str, str]
    """The value of each field that is the same in all records."""
    ignore_other_columns: bool
    """Whether columns that no field takes are left out; otherwise they refuse the row."""

    @classmethod
    def of(
        cls,
        schema: pb.RecordSchema,
        table: Table,
        *,
        columns: Mapping[str, str] | None = None,
        constants: Mapping[str, str] | None = None,
        ignore_other_columns: bool = False,
    ) -> FieldMapping:
        """Returns the mapping for a file.

        Args:
            schema: of the Datanet.
            table: the file.
            columns: the column of a field whose column has another name. Other fields take the column of their name.
            constants: the value of a field, whatever the file has.
            ignore_other_columns: leave out columns that no field takes.

        Raises:
            InputError: a field is not in the schema or given twice, a column is not in the file, a required field has no column,
                or columns remain.
        """
        given, constants = dict(columns or {}), dict(constants or {})
        fields = [field.name for field in schema.fields]
        _check_names(fields, given, constants)
        same_name = [name for name in fields if name not in given and name not in constants]
        if table.is_closed:
            _check_columns(table, given)
            same_name = [name for name in same_name if name in table.columns]
        found = cls(
            columns=given | {name: name for name in same_name},
            constants=constants,
            ignore_other_columns=ignore_other_columns,
        )
        _check_required(schema, table, found)
        _check_others(fields, table, found)
        return found

    @property
    def read(self) -> frozenset[str] | None:
        """The columns that need to be read; None for all."""
        return frozenset(self.columns.values()) if self.ignore_other_columns else None

    def record(self, row: Row) -> dict[str, str] | Refusal:
        """Returns the record of a row, which no rule has checked yet; or why the row has none."""
        if not self.ignore_other_columns:
            for column in row.cells.keys() - set(self.columns.values()):
                return _refused(row, column, "unknown_field", f"no field takes the column {column[:100]!r}")
        found: dict[str, str] = {}
        for field, column in self.columns.items():
            cell = row.cells.get(column)
            if isinstance(cell, NotText):
                source = "" if column == field else f" in column {column!r}"
                return _refused(row, field, cell.rule, f"the value{source} is {cell.kind}; a text is needed")
            if cell is not None:
                found[field] = cell
        return {**found, **self.constants}


def _refused(row: Row, field: str, rule: str, reason: str) -> Refusal:
    return Refusal(number=row.number, line=row.line, end=row.end, field=field[:100], rule=rule, reason=reason)


def _check_names(fields: list[str], columns: Mapping[str, str], constants: Mapping[str, str]) -> None:
    for option, given in (("map", columns), ("set", constants)):
        for name in given:
            if name not in fields:
                message = f"{name!r} is not a field of the Datanet; its fields are {listed(fields)}"
                raise InputError.of(option, "known", message)
    for name in columns:
        if name in constants:
            raise InputError.of("set", "unique", f"the field {name!r} has a column (map) and a value (set)")


def _check_columns(table: Table, columns: Mapping[str, str]) -> None:
    for field, column in columns.items():
        if column not in table.columns:
            message = f"{field}={column}: the file has no column {column!r}; its columns are {listed(table.columns)}"
            raise InputError.of("map", "column", message)


def _check_required(schema: pb.RecordSchema, table: Table, mapping: FieldMapping) -> None:
    """Finds a field that every row would lack, as far as the columns are known."""
    for field in schema.fields:
        column = mapping.columns.get(field.name, field.name)
        if (
            field.required
            and field.name not in mapping.constants
            and column not in table.columns
            and table.columns
        ):
            message = (
                f"the required field {field.name!r} has no column: "
                f"the file has {listed(table.columns)}; give --map {field.name}=COLUMN or --set {field.name}=VALUE"
            )
            raise InputError.of("map", "required", message)


def _check_others(fields: list[str], table: Table, mapping: FieldMapping) -> None:
    used = set(mapping.columns.values())
    others = [column for column in table.columns if column not in used]
    if others and not mapping.ignore_other_columns:
        message = (
            f"no field takes the columns {listed(others)} of the file; the Datanet's fields are {listed(fields)}. "
            "Give --map FIELD=COLUMN, or --ignore-other-fields to leave them out"
        )
        raise InputError.of("map", "other_columns", message)
