"""Texts that a reader takes for the same fold alike; others do not; and time grows with the length only."""

from __future__ import annotations

import re
import time
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from identity.folding import fold, is_blank, letters, same_person
from openledger_testing.disguises import DISGUISES

TEXT = "Magnet Goblin has used HTTP on port 1080; Vanya's Yuri Installed a task for the Command and Control of it."


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_disguised_text_folds_as_the_text_does(disguise: str) -> None:
    disguised = DISGUISES[disguise](TEXT)
    assert disguised != TEXT
    assert fold(disguised) == fold(TEXT)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("HANNAH", "\u0397ANNA\u0397"),  # Greek capitals
        ("hello", "\U0001d421\U0001d41e\U0001d425\U0001d425\U0001d428"),  # mathematical bold
        ("Stra\u00dfe", "STRASSE"),
        ("\u0397\u039b\u0399\u039f\u03a3", "\u03b7\u03bb\u03b9\u03bf\u03c2"),  # Greek, both cases
        ("\u0412 \u041c\u043e\u0441\u043a\u0432\u0435", "\u0432 \u043c\u043e\u0441\u043a\u0432\u0435"),
        ("\u304c", "\u304b\u3099"),
        ("paypal", "paypa1"),
        ("paypal", "paypa|"),
        ("ISTANBUL", "\u0131stanbul"),
        ("tags", "tags\U000e0041\U000e007f"),
        ("marble", "\u1d50\u1d43\u02b3\u1d47\u02e1\u1d49"),  # superscripts
        ("alice", "\u1d00\u029f\u026a\u1d04\u1d07"),  # small capitals
        ("alice", "\U0001f150\U0001f13b\u24d8\u249e\u24ba"),  # in circles, squares and brackets
        ("quick brown", "quick\u2800brown"),  # an empty pattern of Braille
        ("a mark", "a\u3099 mar\u0941k"),
        (
            "second first",
            "\u202etsrif\u2069 \u2066second",
        ),  # an isolate that nothing began, one that nothing ends
        ("first second", "\u202e\u2066second\u2069 tsrif"),
        ("first second", "\u202etsrif\u202c\u202e dnoces\u202c".replace("\u202e dnoces", " \u202ednoces")),
    ],
)
def test_what_looks_alike_folds_alike(text: str, other: str) -> None:
    assert fold(text) == fold(other)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("bob", "rob"),
        ("hanna", "nanna"),
        ("user 2", "user 3"),
        ("\u043c\u0438\u0440", "\u043c\u043e\u0440\u0435"),
        ("a b", "ab"),
    ],
)
def test_other_texts_fold_differently(text: str, other: str) -> None:
    assert fold(text) != fold(other)


# Not shown: what a name or a text must not differ in.
UNSEEN = (
    *"\u200b\u00ad\u3164\uffa0\u115f\u034f\u0640\ufffc\ue000\ufdd0\uffff\u0378\u008d\u009b\u0600\u070f\u08e2\u180e",
    *"\U0001d159\U0001f3fb\U00013430\U000110bd\U000f0000\U0010ffff\U000e0041\ufe0f\u3099\u0941\u20dd\x07\x1b",
)


@pytest.mark.parametrize("unseen", UNSEEN, ids=lambda each: f"{ord(each):x}")
def test_what_is_not_shown_changes_neither_a_text_nor_a_person(unseen: str) -> None:
    assert fold(f"an {unseen}od{unseen}d case{unseen}") == fold("an odd case")
    assert same_person(f"{unseen}ali{unseen}ce{unseen}", "alice")
    assert is_blank(f" {unseen}\n{unseen}")


_FORM = re.compile(
    r"(?:MATHEMATICAL|FULLWIDTH LATIN|(?:NEGATIVE )?(?:CIRCLED|SQUARED) LATIN|PARENTHESIZED LATIN|LATIN|SUPERSCRIPT LATIN"
    r"|MODIFIER LETTER|LATIN SUBSCRIPT|REGIONAL INDICATOR SYMBOL)\b.*\b(?:SMALL|CAPITAL|LETTER)(?: LETTER)? ([A-Z])(?: WITH .*)?"
)


def test_every_form_of_an_ascii_letter_folds_to_it() -> None:
    """By the names of this Python's Unicode; the table's is newer."""
    wrong = {}
    forms = 0
    for code in range(0x80, 0x110000):
        name = unicodedata.name(chr(code), "")
        found = _FORM.fullmatch(name)
        if found and not re.search(
            "TURNED|REVERSED|INVERTED|SIDEWAYS|OPEN|STRETCHED|LONG|DELTA|CYRILLIC|WITH SMALL", name
        ):
            forms += 1
            if fold(chr(code)) != fold(found[1]):
                wrong[name] = fold(chr(code))
    assert forms > 1500
    assert wrong == {}


def test_every_code_point_folds_once_and_for_all() -> None:
    pairs = ((chr(code), fold(chr(code))) for code in range(0x110000))
    assert [character for character, once in pairs if fold(once) != once] == []


def test_no_mark_control_or_character_without_meaning_is_left() -> None:
    dropped = {"Cc", "Cf", "Co", "Cs", "Mn", "Mc", "Me"}
    left = [
        code
        for code in range(0x110000)
        if unicodedata.category(chr(code)) in dropped and not chr(code).isspace() and fold(chr(code))
    ]
    assert left == []


@given(st.text())
@example("||a|")
@example("|\u00af")  # a bar beside a sign that folds to a letter
def test_folding_twice_changes_nothing(text: str) -> None:
    once = fold(text)
    assert fold(once) == once


@given(st.text(max_size=30))
def test_normal_forms_fold_alike(text: str) -> None:
    assert len({fold(unicodedata.normalize(form, text)) for form in ("NFC", "NFD")}) == 1


def test_a_name_wholly_in_greek_capitals_is_the_same_person() -> None:
    assert same_person("ANN", "\u0391\u039d\u039d")
    assert same_person("\u0391\u039d\u039d\u0391", "\u03b1\u03bd\u03bd\u03b1")


@pytest.mark.parametrize(
    "other", ["a-lice", "a lice", "al\u00b7ice", "alice.", "a_l_i_c_e", "\u2018alice\u2019", "ALICE\u2010"]
)
def test_separators_do_not_make_another_person(other: str) -> None:
    assert same_person("alice", other)
    assert same_person(other, "alice")


def test_names_of_signs_alone_are_told_apart() -> None:
    assert not same_person("!", "?")


def test_the_letters_of_a_text_are_what_no_separator_changes() -> None:
    other = "s p a\u00b7c\u2010e\u00ad\nd_o\u2019ut\u200a!"
    assert letters(fold(other)) == letters(fold("Spaced out"))


@pytest.mark.parametrize("other", ["Jos\u00e9", "JOS\u00c9", "Jose\u0301 ", " jose\u0301", "J\u043ese\u0301"])
def test_a_name_in_another_form_is_the_same_person(other: str) -> None:
    assert same_person("Jos\u00e9", other)


def test_other_names_are_other_people() -> None:
    assert not same_person("alice", "bob")
    assert not same_person("\u200b", "a")


@pytest.mark.parametrize(
    "piece",
    [
        "The quick brown fox ",
        "\u0411\u044b\u0441\u0442\u0440\u0430\u044f ",
        "\u0301\u0327",
        "\u0e38\u094d",
        "\u202e",
        "\u202ea\u2069\u2067b",
        "|",
        "\ufdfa",
        "t\u0435xt \uff46 \u00e9 ",
    ],
)
def test_eight_times_the_text_folds_in_eight_times_the_time(piece: str) -> None:
    text = "a" + piece * (16_384 // len(piece.encode()))
    fold(text)  # tables are read once
    part, whole = _seconds(text), _seconds(text * 8)
    assert (
        whole < 3 * 8 * part + 0.005
    )  # quadratic time would be 64 times as much; the rest is for a busy machine


def _seconds(text: str) -> float:
    """Processor time of the fastest of some runs: other processes only ever add to it."""
    times = []
    for _ in range(5):
        start = time.thread_time()
        fold(text)
        times.append(time.thread_time() - start)
    return min(times)
