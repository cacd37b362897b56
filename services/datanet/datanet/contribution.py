"""Parses a contribution's bytes into a record, and rejects malformed ones.

A record is a flat JSON object of strings. Its name is the digest of its canonical JSON, so that key order, spacing and
Unicode normalisation make no difference.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from datanet.definition import MAX_RECORD_BYTES, Field, RecordSchema
from identity.digest import NotCanonical, canonical_json, sha256_bytes
from identity.folding import is_blank
from servicekit.texts import MAX_REASON_BYTES, cut, listed

VERSION = 3
MAX_DEPTH = 64
"""A record is flat; anything deeper than this is not parsed."""

_MAX_FIELD_BYTES = 100

MAX_MARKS = 30
"""Combining marks in a row (UAX 15, Stream-Safe Text). Unicode normalisation sorts them in quadratic time: 64 KiB take 0.8 s."""

# Possessive, and the end of a string is optional: an open string is read once to the end of the text. Otherwise each of its
# quotes would be tried as another beginning.
_STRINGS = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")
_BRACKETS = re.compile(r"[\[\]{}]")

_KINDS: Mapping[type, str] = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
}
_CONTROL = {chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))} - set("\t\n\r")


@dataclass(frozen=True)
class Record:
    """A well-formed contribution."""

    digest: str
    content: bytes
    """Its canonical JSON."""
    value: Mapping[str, str]


@dataclass(frozen=True)
class Rejection:
    """Why a contribution is rejected. The message never repeats a value: it may be what must not be stored."""

    rule: str
    """Stable id, e.g. `unknown_field`, `personal_data`."""
    field: str
    """The field that breaks the rule; "" for the record as a whole."""
    message: str
    """What is wrong and what would be right, for the contributor. At most MAX_REASON_BYTES: it is stored."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", cut(self.message, MAX_REASON_BYTES))
        object.__setattr__(self, "field", cut(self.field, _MAX_FIELD_BYTES))


class _NotText(ValueError):
    """A key has a lone surrogate: half of a character, which UTF-8 and messages cannot carry."""


class _Duplicate(ValueError):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def parse(data: bytes, schema: RecordSchema) -> Record | Rejection:
    """Returns the record in `data`, or the first fault. Raises nothing."""
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
    # Canonical JSON is in Unicode form C: the rules and the snapshot use exactly what the digest names.
    return Record(sha256_bytes(content), content, json.loads(content))


def _object(data: bytes) -> dict[str, object] | Rejection:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return Rejection("not_utf8", "", f"byte {error.start} is not UTF-8; it must be a UTF-8 JSON object")
    if _depth(text) > MAX_DEPTH:
        return Rejection("not_json", "", "nested too deeply; it must be a flat JSON object of strings")
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except _NotText:
        return Rejection("not_text", "", "a field's name has a lone surrogate, which UTF-8 cannot carry")
    except _Duplicate as error:
        return Rejection("duplicate_field", error.key[:100], "the field occurs twice; each may occur once")
    except json.JSONDecodeError as error:
        return Rejection("not_json", "", f"not JSON at character {error.pos}: {error.msg}")
    except ValueError:  # an integer of more digits than Python reads
        return Rejection("not_json", "", "a number is too long; it must be a flat JSON object of strings")
    if not isinstance(value, dict):
        return Rejection("not_an_object", "", f"the record is {_kind(value)}; it must be a JSON object")
    return value


def _depth(text: str) -> int:
    """Returns how deeply arrays and objects nest. json's parser recurses in C: if a library has raised the recursion
    limit, a hostile record would crash the process instead of raising."""
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
            message = f"not a field of this Datanet; its fields are {listed(known)}"
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
    if _SURROGATE.search(value):
        yield Rejection("not_text", field.name, "the value has a lone surrogate, which UTF-8 cannot carry")
    if field.required and is_blank(value):
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
    if _too_many_marks(value):
        message = f"the value has more than {MAX_MARKS} combining marks in a row"
        yield Rejection("combining_marks", field.name, message)
    if field.allowed_values and value not in field.allowed_values:
        yield Rejection(
            "label_not_allowed",
            field.name,
            f"not an allowed value; allowed are {listed(field.allowed_values)}",
        )


def _too_many_marks(text: str) -> bool:
    if text.isascii():
        return False
    marks = "".join("x" if unicodedata.combining(character) else " " for character in text)
    return "x" * (MAX_MARKS + 1) in marks


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result: dict[str, object] = {}
    for key, value in pairs:
        if _SURROGATE.search(key):
            raise _NotText
        if key in result:
            raise _Duplicate(key)
        result[key] = value
    return result


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "null")
