"""Judging a record takes time in proportion to its text, for any text: a stranger chooses it."""

from __future__ import annotations

import pytest

from datanet import contribution
from datanet.contribution import MAX_RECORD_BYTES
from datanet.definition import SUPPORTED_ENTITIES, Datanet, Field, QualityPolicy, RecordSchema
from datanet.personal_data import PersonalData
from datanet.quality import Rules
from identity.digest import canonical_json
from openledger_testing.hostile_texts import UNITS, cpu_s, text_of

SIZE = 65_536
"""The default limit of a field."""

PART = 8
MAX_SLOWDOWN = 3.0 * PART
"""8 times the text takes at most 8 times the time; the rest is for a busy machine. Quadratic time would give 64."""

MAX_CPU_S = 0.5
"""Ten times what the documentation promises: this machine may be ten times slower. The measured bar is in `bench/judging.py`."""


@pytest.fixture
def rules(datanet: Datanet) -> Rules:
    """The rules of a Datanet that asks for everything."""
    schema = RecordSchema((Field(name="text", required=True), Field(name="note")), "{text}", " {text}")
    return Rules(schema, QualityPolicy(personal_data_entities=SUPPORTED_ENTITIES), None)


@pytest.mark.parametrize("kind", UNITS)
def test_a_hostile_text_is_judged_in_linear_time(rules: Rules, kind: str) -> None:
    # The field outside of the prompt reaches the recognisers: low quality does not stop it.
    prose = "The group used a tool to download more tools for later use."
    whole, part = (
        canonical_json({"text": prose, "note": text_of(UNITS[kind], size)}) for size in (SIZE, SIZE // PART)
    )
    long_s, short_s = cpu_s(lambda: rules.judge(whole)), cpu_s(lambda: rules.judge(part))
    assert long_s < MAX_CPU_S
    assert long_s < MAX_SLOWDOWN * short_s + 0.005


@pytest.mark.parametrize("unit", ['\\"', '"', "[", '["', '{"a":', "[]", '[\\"', '"\\'])
def test_bytes_that_are_no_json_are_refused_in_linear_time(rules: Rules, unit: str) -> None:
    opened = '{"text": "' + "[" * 70 + '"'
    whole, part = ((opened + text_of(unit, size)).encode() for size in (SIZE, SIZE // PART))
    long_s, short_s = cpu_s(lambda: rules.judge(whole)), cpu_s(lambda: rules.judge(part))
    assert long_s < MAX_CPU_S
    assert long_s < MAX_SLOWDOWN * short_s + 0.005


def test_the_largest_record_is_judged(rules: Rules) -> None:
    data = canonical_json({"text": "A sentence of prose for the record.", "note": "x"})
    assert len(data) < MAX_RECORD_BYTES
    assert isinstance(
        contribution.parse(data + b" " * (MAX_RECORD_BYTES - len(data)), rules._schema), contribution.Record
    )


def test_all_entities_are_found_in_one_text() -> None:
    assert PersonalData(SUPPORTED_ENTITIES).find("Call it 10.0.0.1 and mail a.b@example.com.") == "IP_ADDRESS"
