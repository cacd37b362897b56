"""The rules of a record's form, checked before it is sent: those that need no more than the Datanet's schema.

The service applies these first and then its others (docs/data.md). Whatever is refused here it would refuse too, with the same
rule; a test of the service compares them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from openledger.datanet.v1 import datanet_pb2 as pb

from openledger_client.importing.mapping import FieldMapping
from openledger_client.importing.rows import Refusal, Table, listed

MAX_RECORD_BYTES = 1 << 20
"""Of a record's JSON."""
DEFAULT_MAX_LENGTH = 65_536
"""Characters of a field whose schema does not say."""

_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A row that may be sent."""

    number: int
    line: int | None
    end: int
    """As in `Row`."""
    record: Mapping[str, str]
    content: bytes
    """Its JSON, as Contribute takes it."""


def prepared(
    table: Table, schema: pb.RecordSchema, mapping: FieldMapping, *, skip: int = 0
) -> Iterator[Prepared | Refusal]:
    """Yields the rows after the first `skip`, in order: a record each, or why there is none.

    Raises InputError where the file cannot be read any further.
    """
    for row in table.rows(mapping.read):
        if row.number <= skip:
            continue
        if isinstance(row, Refusal):
            yield row
            continue
        record = mapping.record(row)
        if isinstance(record, Refusal):
            yield record
            continue
        broken = check(record, schema, mapping)
        content = b"" if broken else json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
        if len(content) > MAX_RECORD_BYTES:
            broken = "", "too_large", f"the record has more than the {MAX_RECORD_BYTES:,} bytes allowed"
        if broken:
            field, rule, reason = broken
            yield Refusal(
                number=row.number, line=row.line, end=row.end, field=field, rule=rule, reason=reason
            )
        else:
            yield Prepared(number=row.number, line=row.line, end=row.end, record=record, content=content)


def check(
    record: Mapping[str, str], schema: pb.RecordSchema, mapping: FieldMapping | None = None
) -> tuple[str, str, str] | None:
    """Returns field, rule and reason of the first rule that a record breaks; None if it breaks none.

    `mapping` names the column in the reason, where it has another name than the field.
    """
    for field in schema.fields:
        value = record.get(field.name)
        found = _missing(field) if value is None else _broken(field, value)
        if found is not None:
            rule, reason = found
            column = mapping.columns.get(field.name, field.name) if mapping else field.name
            return field.name, rule, reason if column == field.name else f"{reason} (column {column!r})"
    return None


def _missing(field: pb.RecordSchema.Field) -> tuple[str, str] | None:
    return (
        ("missing_field", "the field is required, and the row has no value for it")
        if field.required
        else None
    )


def _broken(field: pb.RecordSchema.Field, value: str) -> tuple[str, str] | None:
    limit = field.max_length or DEFAULT_MAX_LENGTH
    if _SURROGATE.search(value):
        return "not_text", "the value has a lone surrogate, which UTF-8 cannot carry"
    if field.required and not value.strip():
        return "empty_field", "the value is empty; a required field must have one"
    if len(value) > limit:
        return "too_long", f"the value has {len(value):,} characters; at most {limit:,} are allowed"
    if _CONTROLS.search(value):
        return "control_character", "of control characters only tab, line feed and return are allowed"
    if field.allowed_values and value not in field.allowed_values:
        return "label_not_allowed", f"not an allowed value; allowed are {listed(field.allowed_values)}"
    return None
