"""From bytes to a record: the form every contribution must have before its quality is looked at.

A record is a flat JSON object of strings. Its name is the digest of its canonical JSON, so that the same
record in another key order, spacing or Unicode normalisation is the same record.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from datanet.definition import MAX_RECORD_BYTES, Field, RecordSchema
from identity.digest import NotCanonical, canonical_json, sha256_bytes

VERSION = 1
MAX_DEPTH = 64
"""A record is flat; anything deeper than this is not even read as JSON."""

_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKETS = re.compile(r"[\[\]{}]")

_KINDS: Mapping[type, str] = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
}
_CONTROL = {chr(code) for code in range(0x20)} - set("\t\n\r") | {"\x7f"}


@dataclass(frozen=True)
class Record:
    """A well-formed contribution."""

    digest: str
    content: bytes
    """Its canonical JSON."""
    value: Mapping[str, str]


@dataclass(frozen=True)
class Rejection:
    """Why a contribution is refused. The message never repeats a value: it may be what must not be kept."""

    rule: str
    """Stable id, e.g. `unknown_field`, `personal_data`."""
    field: str
    """The field that breaks it; "" for the record as a whole."""
    message: str
    """What was wrong and what would be right, for the contributor."""


class _Duplicate(ValueError):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def parse(data: bytes, schema: RecordSchema) -> Record | Rejection:
    """The record in `data`, or the first thing that keeps it from being one. Raises nothing."""
    if not data:
        return Rejection("empty", "", "the record is empty; it must be a JSON object")
    if len(data) > MAX_RECORD_BYTES:
        return Rejection("too_large", "", f"the record has more than the {MAX_RECORD_BYTES} bytes allowed")
    value = _object(data)
    if isinstance(value, Rejection):
        return value
    violation = next(_violations(value, schema), None)
    if violation is not None:
        return violation
    try:
        content = canonical_json(value)
    except NotCanonical as error:
        return Rejection("not_text", error.path.removeprefix("$."), f"the value {error.rule}")
    # Canonical JSON is in Unicode form C: the rules and the snapshot see exactly what the digest names.
    return Record(sha256_bytes(content), content, json.loads(content))


def _object(data: bytes) -> dict[str, object] | Rejection:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return Rejection("not_utf8", "", f"byte {error.start} is not UTF-8; it must be a UTF-8 JSON object")
    if _depth(text) > MAX_DEPTH:
        return Rejection("not_json", "", "nested too deep; it must be a flat JSON object")
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except _Duplicate as error:
        return Rejection("duplicate_field", error.key[:100], "the field stands twice; each may stand once")
    except json.JSONDecodeError as error:
        return Rejection("not_json", "", f"not JSON at character {error.pos}: {error.msg}")
    except ValueError:  # an integer of more digits than Python reads
        return Rejection("not_json", "", "a number is too long; it must be a flat JSON object of strings")
    if not isinstance(value, dict):
        return Rejection("not_an_object", "", f"the record is {_kind(value)}; it must be a JSON object")
    return value


def _depth(text: str) -> int:
    """How deep arrays and objects nest at most. json's reader recurses in C: where a library has raised the recursion
    limit, a hostile record would end the process instead of raising."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return 0
    depth = deepest = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _violations(value: Mapping[str, object], schema: RecordSchema) -> Iterator[Rejection]:
    known = {each.name: each for each in schema.fields}
    for name in value:
        if name not in known:
            message = f"not a field of this Datanet; its fields are {', '.join(known)}"
            yield Rejection("unknown_field", name[:100], message)
    for each in schema.fields:
        if each.name in value:
            yield from _value_violations(each, value[each.name])
        elif each.required:
            yield Rejection("missing_field", each.name, "the field is required")


def _value_violations(field: Field, value: object) -> Iterator[Rejection]:
    if not isinstance(value, str):
        yield Rejection("wrong_type", field.name, f"the value is {_kind(value)}; it must be a string")
        return
    if field.required and not value.strip():
        yield Rejection("empty_field", field.name, "the value is empty; a required field must have one")
    if len(value) > field.max_length:
        message = f"the value has {len(value)} characters; at most {field.max_length} are allowed"
        yield Rejection("too_long", field.name, message)
    if not _CONTROL.isdisjoint(value):
        yield Rejection(
            "control_character",
            field.name,
            "of control characters only tab, line feed and return are allowed",
        )
    if field.allowed_values and value not in field.allowed_values:
        shown = ", ".join(field.allowed_values[:20]) + (", ..." if len(field.allowed_values) > 20 else "")
        yield Rejection("label_not_allowed", field.name, f"not an allowed value; allowed are {shown}")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result: dict[str, object] = {}
    for key, value in pairs:
        if key in result:
            raise _Duplicate(key)
        result[key] = value
    return result


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "null")
