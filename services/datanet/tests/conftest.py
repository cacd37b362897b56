"""What the tests of this service share: a Datanet, a record's bytes, a Datanet's rules."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from datanet.definition import Datanet, Field, QualityPolicy, RecordSchema

TACTICS = ("discovery", "execution", "persistence")

SCHEMA = RecordSchema(
    fields=(
        Field("text", required=True, max_length=4000),
        Field("tactic", required=True, allowed_values=TACTICS),
        Field("source", max_length=200),
    ),
    prompt_template="Report: {text}\nTactic:",
    completion_template=" {tactic}",
)


@pytest.fixture(scope="session")
def datanet() -> Datanet:
    """A Datanet of labelled texts."""
    return Datanet("datanets/threat-intel", "owner", "CC-BY-4.0", SCHEMA, QualityPolicy())


@pytest.fixture
def encode() -> Callable[..., bytes]:
    """A record's bytes; the label is `discovery` unless said otherwise."""

    def record(text: str, tactic: str = "discovery", **more: object) -> bytes:
        return json.dumps({"text": text, "tactic": tactic, **more}).encode()

    return record
