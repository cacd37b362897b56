"""A Datanet that could not work is refused when it is made, not when it is used."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from datanet.definition import Datanet, Field, QualityPolicy, RecordSchema, template_fields
from servicekit.errors import InvalidArgument


def test_a_whole_datanet_is_valid_and_survives_storage(datanet: Datanet) -> None:
    datanet.validate()
    assert RecordSchema.from_json(json.loads(json.dumps(datanet.schema.to_json()))) == datanet.schema
    assert QualityPolicy.from_json(json.loads(json.dumps(datanet.policy.to_json()))) == datanet.policy


@pytest.mark.parametrize(
    ("prompt", "wrong"),
    [
        ("no placeholder", "at least one"),
        ("{text} {colour}", "{colour} is not a field"),
        ("{text} {source}", "{source} must be a required field"),
        ("{text", "must contain only plain"),
        ("{text.__class__}", "must contain only plain"),
        ("{text!r}", "must contain only plain"),
        ("{text:>9}", "must contain only plain"),
        ("{}", "must contain only plain"),
    ],
)
def test_a_template_must_fill_from_required_fields(datanet: Datanet, prompt: str, wrong: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        replace(datanet, schema=replace(datanet.schema, prompt_template=prompt)).validate()
    assert wrong in refused.value.message
    assert refused.value.violations[0].field == "schema.prompt_template"


def test_a_field_declared_twice_is_refused(datanet: Datanet) -> None:
    schema = replace(datanet.schema, fields=(*datanet.schema.fields, Field(name="text")))
    with pytest.raises(InvalidArgument, match="declared once"):
        replace(datanet, schema=schema).validate()


def test_a_datanet_without_a_licence_is_refused(datanet: Datanet) -> None:
    with pytest.raises(InvalidArgument, match="consent"):
        replace(datanet, licence="").validate()


def test_template_fields_are_in_order_and_braces_can_be_escaped() -> None:
    assert template_fields("{{json}} {b} {a} {b}") == ["b", "a"]
