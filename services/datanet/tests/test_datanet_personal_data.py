"""How many planted identifiers and secrets the rule `personal_data` finds, and how often it is wrong."""

from __future__ import annotations

import pytest

from datanet.definition import DEFAULT_ENTITIES, SUPPORTED_ENTITIES
from datanet.personal_data import PersonalData
from datanet.personal_data.folding import FoldedText
from openledger_testing.planted_personal_data import CLEAN, PLANTED

FIND = PersonalData(DEFAULT_ENTITIES).find


def test_at_least_32_of_35_planted_identifiers_and_secrets_are_found() -> None:
    missed = [text for _, text in PLANTED if FIND(text) is None]
    assert len(PLANTED) == 35
    assert len(missed) <= 3, missed


def test_at_most_one_of_60_clean_texts_is_refused() -> None:
    wrong = [(FIND(text), text) for text in CLEAN if FIND(text) is not None]
    assert len(CLEAN) == 60
    assert len(wrong) <= 1, wrong


@pytest.mark.parametrize(
    ("text", "entity"),
    [
        ("Ask ja\u00adne.doe@exam\u200bple.com for the file.", "EMAIL_ADDRESS"),
        ("Ask jane (at) example.com for the file.", "EMAIL_ADDRESS"),
        ("Ring +44 20 7946 0958 before noon.", "PHONE_NUMBER"),
        ("Ring (415) 555-2671 before noon.", "PHONE_NUMBER"),
        ("Telefon: 030 1234567, nur vormittags.", "PHONE_NUMBER"),
        ("In 2023 4539 1488 0343 6467 was charged.", "CREDIT_CARD"),
        ("His card is ٤٥٣٩ ١٤٨٨ ٠٣٤٣ ٦٤٦٧ of the bank.", "CREDIT_CARD"),
        ("Social security 536 22 8467 was on it.", "US_SSN"),
        ("NIE X1234567L was granted in May.", "NATIONAL_ID"),
        ("His AHV number is 756.9217.0769.85 there.", "NATIONAL_ID"),
        ("BSN 111222333 belongs to the applicant.", "NATIONAL_ID"),
        ("Born there: 01018012371 as registered.", "NATIONAL_ID"),
        ("The id 11010519491231002X was copied.", "NATIONAL_ID"),
        ("Her NHS number is 943 476 5919 in the letter.", "NATIONAL_ID"),
        ("aws_secret_access_key: wJalrXUtnFEMIK7MDENGbPxRfiCYzQ9kLm2Xw8Ty", "SECRET"),
    ],
)
def test_other_forms_are_found(text: str, entity: str) -> None:
    assert FIND(text) == entity


@pytest.mark.parametrize("text", ["The host 10.0.0.1 answered.", "It listens on fe80::1 only."])
def test_addresses_of_machines_are_found_where_asked_for(text: str) -> None:
    assert FIND(text) is None
    assert PersonalData(SUPPORTED_ENTITIES).find(text) == "IP_ADDRESS"


def test_a_time_of_day_is_no_address_of_a_machine() -> None:
    assert PersonalData(("IP_ADDRESS",)).find("At 12:30:45 version 1.2.3.4000 was released.") is None


def test_a_folded_text_is_never_longer() -> None:
    text = "\ufdfa\u3300ＡＢ\u200b٣İ"
    folded = FoldedText(text)
    assert folded.text == "\ufdfa\u3300AB3İ"
    assert len(folded.lower) == len(folded.text)
