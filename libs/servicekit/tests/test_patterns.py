"""A caller reads what is right, not a regular expression."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from servicekit.server.steps.patterns import in_words

PROTO = Path(__file__).resolve().parents[3] / "proto" / "openledger"
PATTERNS = sorted(
    {found for file in PROTO.rglob("*.proto") for found in re.findall(r'pattern = "(.*?)"', file.read_text())}
)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_of_the_protos_has_words(pattern: str) -> None:
    words = in_words(pattern)
    assert words is not None
    assert not re.search(r"[\\^$]|\{\d|\[[a-zA-Z0-9]-", words)


@pytest.mark.parametrize(
    ("pattern", "begins"),
    [
        (
            "^datanets/[a-z][a-z0-9-]{1,62}/snapshots/[1-9][0-9]{0,8}$",
            "datanets/{id}/snapshots/{number}, where",
        ),
        ("^(sha256:[0-9a-f]{64})?$", "empty or sha256:{hex}, where {hex} is 64 lower-case hex digits"),
        ("^(attributions|inferences)/[0-9A-HJKMNP-TV-Z]{26}$", "(attributions or inferences)/{ulid}, where"),
        ("^models/([a-z][a-z0-9-]{1,62}|-)$", "models/({id} or -), where"),
        (
            "^(models/[a-z][a-z0-9-]{1,62}(/versions/[1-9][0-9]{0,8})?|baseModels/[a-z0-9][a-z0-9.-]{0,62})$",
            "models/{id}[/versions/{number}] or baseModels/{base}, where",
        ),
    ],
)
def test_words_show_the_form_of_a_name(pattern: str, begins: str) -> None:
    words = in_words(pattern)
    assert words is not None
    assert words.startswith(begins)


@pytest.mark.parametrize("pattern", ["^a+$", "^[x-z]$", r"^\\d{2}$"])
def test_a_pattern_of_other_parts_has_none(pattern: str) -> None:
    assert in_words(pattern) is None
