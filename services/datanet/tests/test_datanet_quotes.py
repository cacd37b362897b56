"""A reason stays when its record's text is deleted, so it must not quote it."""

from __future__ import annotations

import pytest

from datanet.quotes import quotes

CONTENT = (
    b'{"source":"a.example","tactic":"discovery","text":"The group lists running processes of each host."}'
)


@pytest.mark.parametrize(
    "reason",
    [
        "Remove it: the group lists running processes",
        "THE_GROUP_LISTS_RUNNING_PROC and so on",
        "t h e g r o u p l i s t s r u n n i n g p r o c",
        "\u202esessecorp gninnur stsil puorg eht",
    ],
)
def test_a_reason_with_a_part_of_the_text_quotes_it(reason: str) -> None:
    assert quotes(reason, CONTENT)


@pytest.mark.parametrize("reason", ["", "mine", "wrong tactic: discovery", "lists running processes twice"])
def test_a_reason_of_its_own_words_does_not(reason: str) -> None:
    assert not quotes(reason, CONTENT)


def test_a_short_value_counts_whole() -> None:
    assert quotes("it was: four little words", b'{"text":"Four little words"}')


def test_a_damaged_record_is_compared_as_it_is() -> None:
    assert quotes("the group lists running processes", b'{"text":"The group lists running processes')
