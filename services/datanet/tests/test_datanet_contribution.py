"""Any bytes are a record of the schema or are refused by one named rule."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datanet.contribution import Record, Rejection, parse
from datanet.definition import Datanet, Field, RecordSchema
from identity.digest import digest_json
from servicekit.texts import MAX_REASON_BYTES

Encode = Callable[..., bytes]

TEXT = "The group lists running processes."


def test_a_record_is_named_by_its_canonical_json(datanet: Datanet) -> None:
    spaced = b'{ "tactic" : "discovery",\n "text": "The group lists running processes." }'
    record = parse(spaced, datanet.schema)
    assert isinstance(record, Record)
    assert record.digest == digest_json({"text": TEXT, "tactic": "discovery"})
    assert record.content == b'{"tactic":"discovery","text":"The group lists running processes."}'


def test_unicode_spellings_of_one_text_are_one_record(datanet: Datanet, encode: Encode) -> None:
    composed, decomposed = (
        parse(encode("Caf\u00e9 data"), datanet.schema),
        parse(encode("Cafe\u0301 data"), datanet.schema),
    )
    assert isinstance(composed, Record)
    assert composed == decomposed


@pytest.mark.parametrize(
    ("data", "rule", "field"),
    [
        (b"", "empty", ""),
        (b" " * (1 << 20) + b"{}", "too_large", ""),
        (b'{"text": "\xff\xfe"}', "not_utf8", ""),
        (b"{", "not_json", ""),
        (b'{"text": NaN}', "wrong_type", "text"),
        (b"[" * 100_000, "not_json", ""),
        (b'{"text": ' + b"9" * 5000 + b"}", "not_json", ""),
        (b"[1, 2]", "not_an_object", ""),
        (b"null", "not_an_object", ""),
        (b'{"text": "a", "text": "b", "tactic": "discovery"}', "duplicate_field", "text"),
        (b'{"text": "a", "tactic": "discovery", "colour": "red"}', "unknown_field", "colour"),
        (b'{"text": 7, "tactic": "discovery"}', "wrong_type", "text"),
        (b'{"text": {"a": "b"}, "tactic": "discovery"}', "wrong_type", "text"),
        (b'{"text": null, "tactic": "discovery"}', "wrong_type", "text"),
        (b'{"tactic": "discovery"}', "missing_field", "text"),
        (b'{"text": "  ", "tactic": "discovery"}', "empty_field", "text"),
        (b'{"text": "' + b"a" * 4001 + b'", "tactic": "discovery"}', "too_long", "text"),
        (b'{"text": "a\\u0000b", "tactic": "discovery"}', "control_character", "text"),
        (b'{"text": "a\\ud800b", "tactic": "discovery"}', "not_text", "text"),
        (b'{"\\ud800": "x"}', "not_text", ""),
        (b'{"\\ud800": 1, "\\ud800": 2}', "not_text", ""),
        (b'{"text": {"a": {"\\udfff": "b"}}, "tactic": "discovery"}', "not_text", ""),
        (b'{"text": ["\\ud800"], "tactic": "discovery"}', "wrong_type", "text"),
        (b'{"text": "a", "tactic": "\\ud800"}', "not_text", "tactic"),
        (b'{"text": "a' + b"\\u0301" * 31 + b'", "tactic": "discovery"}', "combining_marks", "text"),
        (b'{"text": "a b c d", "tactic": "magic"}', "label_not_allowed", "tactic"),
    ],
)
def test_what_is_no_record_is_refused_by_field_and_rule(
    data: bytes, rule: str, field: str, datanet: Datanet
) -> None:
    rejection = parse(data, datanet.schema)
    assert isinstance(rejection, Rejection)
    assert (rejection.rule, rejection.field) == (rule, field)
    assert rejection.message


def test_a_refusal_says_what_would_be_right(datanet: Datanet, encode: Encode) -> None:
    rejection = parse(encode(TEXT, tactic="magic"), datanet.schema)
    assert isinstance(rejection, Rejection)
    assert rejection.message == "not an allowed value; allowed are discovery, execution, persistence"


def test_a_mebibyte_is_allowed_and_one_byte_more_is_not(
    datanet: Datanet, encode: Callable[..., bytes]
) -> None:
    data = encode(TEXT)
    assert isinstance(parse(data + b" " * ((1 << 20) - len(data)), datanet.schema), Record)
    assert isinstance(parse(data + b" " * ((1 << 20) - len(data) + 1), datanet.schema), Rejection)


def test_ten_thousand_mangled_records_each_get_an_answer(
    datanet: Datanet, encode: Callable[..., bytes]
) -> None:
    """Random bytes, and valid records with bytes flipped, cut, doubled or inserted."""
    generator = random.Random(7)
    valid = encode(TEXT + " Grüße, 世界", source="https://example.com/report")
    outcomes = set()
    for number in range(10_000):
        data = generator.randbytes(generator.randrange(200)) if number % 4 == 0 else _mangle(valid, generator)
        answer = parse(data, datanet.schema)
        outcomes.add(answer.rule if isinstance(answer, Rejection) else "record")
        if isinstance(answer, Record):
            assert answer.digest == digest_json(json.loads(data))
    assert outcomes >= {"record", "not_utf8", "not_json", "unknown_field", "label_not_allowed"}


_SCALARS = st.none() | st.booleans() | st.floats() | st.integers() | st.text()
_KEYS = st.sampled_from(["text", "tactic", "source", "other"])


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists)
    | st.dictionaries(
        st.sampled_from(["text", "tactic", "source", "other"]), st.text() | st.integers() | st.none()
    )
)
def test_any_json_value_gets_an_answer(datanet: Datanet, value: object) -> None:
    assert isinstance(parse(json.dumps(value).encode(), datanet.schema), Record | Rejection)


def _mangle(data: bytes, generator: random.Random) -> bytes:
    place = generator.randrange(len(data))
    match generator.randrange(5):
        case 0:
            return data[:place] + bytes([generator.randrange(256)]) + data[place + 1 :]
        case 1:
            return data[:place]
        case 2:
            return data[:place] + data[place:] * 2
        case 3:
            return data[:place] + generator.randbytes(3) + data[place:]
        case _:
            return data


def test_a_reason_does_not_grow_with_what_it_quotes(datanet: Datanet) -> None:
    """20 allowed values of 190 kB were in the reason of each refused record of a few bytes."""
    large = tuple(f"{number}" + "\U0001f600" * 1000 for number in range(1000))
    schema = RecordSchema((Field(name="label", required=True, allowed_values=large),), "{label}", " {label}")
    refused = parse(b'{"label": "other"}', schema)
    assert isinstance(refused, Rejection)
    assert len(refused.message.encode()) <= MAX_REASON_BYTES
    many = RecordSchema(tuple(Field(name=f"{'f' * 60}{n}") for n in range(32)), "{f}", " {f}")
    refused = parse(b'{"other": "x"}', many)
    assert isinstance(refused, Rejection)
    assert len(refused.message.encode()) <= MAX_REASON_BYTES
