"""Each rule refuses what it is for and lets pass what it is not for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datanet.contamination import EvaluationItem, EvaluationItems, read_items
from datanet.contribution import Rejection
from datanet.definition import SUPPORTED_ENTITIES, Datanet, QualityPolicy
from datanet.quality import RULE_VERSIONS, Rules, Verdict
from openledger_testing.disguises import DISGUISES
from servicekit.errors import InvalidArgument

POLICY = QualityPolicy()
Judge = Callable[..., Verdict]

GOOD = "APT28 has exploited CVE-2014-4076, CVE-2015-2387 and CVE-2022-38028 to become root on 10.0.0.1."


@pytest.fixture
def judge(datanet: Datanet, encode: Callable[..., bytes]) -> Judge:
    """The verdict on a text under a policy."""

    def verdict(text: str, policy: QualityPolicy = POLICY, *items: EvaluationItem, **more: str) -> Verdict:
        rules = Rules(datanet.schema, policy, EvaluationItems(items) if items else None)
        return rules.judge(encode(text, **more))

    return verdict


def rule(verdict: Verdict) -> str:
    """The rule that refused, or ""."""
    return verdict.rejection.rule if verdict.rejection else ""


def test_a_report_full_of_names_numbers_and_addresses_passes(judge: Judge) -> None:
    verdict = judge(GOOD)
    assert rule(verdict) == ""


@pytest.mark.parametrize(("text", "refused"), [("Three short words", True), ("Four words are enough", False)])
def test_texts_below_the_shortest_length_are_refused(judge: Judge, text: str, refused: bool) -> None:
    assert rule(judge(text)) == ("too_short" if refused else "")


@pytest.mark.parametrize(
    "text",
    [
        "#### $$$$ 1234 5678 !!!! ???? ---- ++++ 99 ab",
        "spam spam spam spam spam spam spam eggs spam spam spam ham spam spam",
        "buy now cheap best offer today only " * 20,
        "xkcdfg qwrtpsdf zxcvbnm lkjhgfds mnbvcxz plkjhg wrtpsdf",
        "This is aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa text",
    ],
)
def test_low_quality_text_is_refused(judge: Judge, text: str) -> None:
    assert rule(judge(text)) == "low_quality"


@pytest.mark.parametrize(
    "text",
    [
        "ZxxZ has run cmd.exe /c whoami && net user && ipconfig /all > %TEMP%\\1.txt to learn of its host.",
        "Die Gruppe nutzt öffentlich erreichbare Fernwartungsdienste, um in Netze einzudringen.",
        "Группа использует планировщик задач, чтобы сохранить доступ к системе.",
    ],
)
def test_technical_and_foreign_prose_is_not_low_quality(judge: Judge, text: str) -> None:
    assert rule(judge(text)) == ""


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Write to jane.doe@example.com for the full report on this.", "an e-mail address"),
        ("The operator can be reached at +1 415 555 2671 by day.", "a phone number"),
        ("Stolen was the card 4111 1111 1111 1111 of a customer.", "a payment card number"),
        ("They were paid to DE89 3704 0044 0532 0130 00 in March.", "a bank account number (IBAN)"),
    ],
)
def test_personal_data_is_refused_and_never_repeated(judge: Judge, text: str, kind: str) -> None:
    verdict = judge(text)
    assert rule(verdict) == "personal_data"
    assert verdict.rejection is not None
    assert verdict.rejection.message == f"the text contains {kind}; remove it and send the record again"


@pytest.mark.parametrize(
    "secret",
    [
        "mailto:dora%40host",
        "dora.smith%40example.com",
        "https://deploy:hunter22@git.internal/repo.git",
        "Authorization: Bearer 3f786850e387550fdab836ed7e6dc881de23001b",
        "private key 0x4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318",
    ],
)
def test_secrets_in_links_headers_and_hex_are_refused(judge: Judge, secret: str) -> None:
    assert rule(judge(f"The operators left {secret} in the script of the loader.")) == "personal_data"


@pytest.mark.parametrize(
    "text",
    [
        "The loader that the group has used since last year is signed; the hash of one sample is "
        "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318.",
        "It sends an Authorization: Bearer token to http://example.com:8080/gate?user@host in vain.",
    ],
)
def test_hashes_and_names_of_headers_pass(judge: Judge, text: str) -> None:
    assert rule(judge(text)) == ""


@pytest.mark.parametrize("character", ["\x80", "\x85", "\x9b", "\x7f", "\x1b"])
def test_control_characters_are_refused(judge: Judge, character: str) -> None:
    assert rule(judge(f"A sentence of prose{character} for the record.")) == "control_character"


@pytest.mark.parametrize("blank", ["\u200b", "\u3164 ", "\u2800", "\ue000\u0301"])
def test_a_required_field_of_what_is_not_shown_is_empty(judge: Judge, blank: str) -> None:
    assert rule(judge(blank)) == "empty_field"


@pytest.mark.parametrize(
    "text",
    [
        "The installer was called KB5004945 and fixes CVE-2021-34527 on port 8443.",
        "It is pinned as package@1.2.3 and talks to user@localhost only.",
        "The card 4111 1111 1111 1112 fails its checksum, as do others like it.",
    ],
)
def test_what_only_looks_like_personal_data_passes(judge: Judge, text: str) -> None:
    assert rule(judge(text)) == ""


def test_personal_data_is_searched_for_in_every_free_field(judge: Judge) -> None:
    verdict = judge(GOOD, source="jane.doe@example.com")
    assert verdict.rejection is not None
    assert (verdict.rejection.rule, verdict.rejection.field) == ("personal_data", "source")


def test_ip_addresses_are_personal_data_only_where_the_policy_says_so(judge: Judge) -> None:
    assert rule(judge(GOOD)) == ""
    assert rule(judge(GOOD, QualityPolicy(personal_data_entities=SUPPORTED_ENTITIES))) == "personal_data"


ITEM = EvaluationItem(
    "hellaswag", "17", "A man is sitting on a roof. He starts pulling up roofing on the roof of it."
)


def test_thirteen_words_of_an_evaluation_item_are_contamination(judge: Judge) -> None:
    copied = "As they say: sitting on a roof, he starts PULLING up roofing on the roof of a barn."
    verdict = judge(copied, POLICY, ITEM)
    assert verdict.rejection is not None
    assert verdict.rejection.rule == "contamination"
    assert "item '17' of suite 'hellaswag'" in verdict.rejection.message


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_disguised_evaluation_item_is_contamination(disguise: str) -> None:
    found = EvaluationItems([ITEM]).check([("text", DISGUISES[disguise](ITEM.text))])
    assert isinstance(found, Rejection)
    assert found.rule == "contamination"


_SEPARATED = {
    "hair_space": lambda text: text.replace("o", "o\u200a"),
    "middle_dot": lambda text: text.replace("o", "o\u00b7"),
    "hyphen": lambda text: text.replace("oo", "o\u2010o").replace("tt", "t\u2010t"),
    "apostrophe": lambda text: text.replace("a", "\u2019a"),
    "broken_lines": lambda text: text.replace("i", "\u00ad\ni"),
    "underscores": lambda text: text.replace(" ", "_"),
    "letter_spacing": lambda text: " ".join(text.replace(" ", "")),
    "no_spaces": lambda text: text.replace(" ", ""),
    "override_that_a_stray_isolate_seems_to_end": lambda text: (
        "\u202e" + text[:20:-1] + "\u2069\u2066" + text[20::-1]
    ),
    "override_of_each_word": lambda text: " ".join(f"\u202e{word[::-1]}\u202c" for word in text.split()),
    "override_of_what_the_model_reads": lambda text: f"\u202e{text}",
    "override_of_each_word_that_the_model_reads": lambda text: " ".join(
        f"\u202e{word}\u202c" for word in text.split()
    ),
    "backwards": lambda text: "\u202d" + text[::-1],
    "superscripts": lambda text: text.replace("o", "\u1d52").replace("e", "\u1d07"),
    "marks": lambda text: text.replace("o", "o\u3099"),
}


@pytest.mark.parametrize("separated", _SEPARATED)
def test_what_stands_between_letters_hides_no_item(separated: str) -> None:
    found = EvaluationItems([ITEM]).check([("text", "So: " + _SEPARATED[separated](ITEM.text))])
    assert isinstance(found, Rejection)
    assert found.rule == "contamination"


def test_an_item_over_two_fields_is_found_and_a_field_named_only_where_it_has_all(judge: Judge) -> None:
    over = judge(
        "The report says: A man is sitting on a roof. He starts", POLICY, ITEM, source=ITEM.text[37:]
    )
    assert over.rejection is not None
    assert (over.rejection.rule, over.rejection.field) == ("contamination", "")
    alone = judge(GOOD, POLICY, ITEM, source=ITEM.text)
    assert alone.rejection is not None
    assert (alone.rejection.rule, alone.rejection.field) == ("contamination", "source")


@given(st.text("abcdef .", max_size=300), st.integers(0, 200), st.integers(60, 100))
def test_any_sixty_letters_in_a_row_are_found(text: str, start: int, width: int) -> None:
    item = replace(ITEM, text=" ".join(sha256(b"%d" % n).hexdigest() for n in range(6)))
    shared = item.text.replace(" ", "")[start : start + width]
    found = EvaluationItems([item]).check([("text", f"{text}. {' '.join(shared)} {text}")])
    assert found is not None
    assert "letters" in found.message


def test_fewer_letters_are_not() -> None:
    item = replace(ITEM, text=" ".join(sha256(b"%d" % n).hexdigest() for n in range(6)))
    assert EvaluationItems([item]).check([("text", " ".join(item.text[:54]))]) is None


def test_twelve_words_of_an_evaluation_item_are_not(judge: Judge) -> None:
    assert rule(judge("On a roof he starts pulling up roofing on the roof and leaves.", POLICY, ITEM)) == ""


def test_a_short_item_is_searched_for_whole_and_a_phrase_not_at_all(judge: Judge) -> None:
    short = EvaluationItem("arc", "1", "Which of these planets has the most moons?")
    phrase = EvaluationItem("arc", "2", "Which of these is a metal?")
    assert (
        rule(judge("He asked which of these planets has the most moons.", POLICY, short)) == "contamination"
    )
    assert rule(judge("Which of these is a metal? No expert knew the answer.", POLICY, phrase)) == ""


def test_evaluation_items_are_read_from_json_lines() -> None:
    items = list(
        read_items(b'{"suite": "s", "item": "1", "text": "t"}\n\n{"suite": "s", "item": 2, "text": "u"}\n')
    )
    assert items == [EvaluationItem("s", "1", "t"), EvaluationItem("s", "2", "u")]


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b'{"suite": "s"}',
        b"\xff",
        b'{"suite": "s", "item": "1", "text": {"a": 1}}',
        b'{"suite": "\\ud800", "item": "1", "text": "t"}',
    ],
)
def test_a_broken_evaluation_item_is_named_by_its_line(line: bytes) -> None:
    with pytest.raises(InvalidArgument, match="line 2"):
        list(read_items(b'{"suite": "s", "item": "1", "text": "t"}\n' + line))


def test_bytes_that_are_no_record_are_judged_by_their_form(datanet: Datanet) -> None:
    verdict = Rules(datanet.schema, datanet.policy, None).judge(b"\xff")
    assert verdict.record is None
    assert rule(verdict) == "not_utf8"


def test_every_rule_has_a_version() -> None:
    assert set(RULE_VERSIONS) >= {"form", "too_short", "low_quality", "personal_data", "contamination"}


def test_a_policy_that_cannot_be_kept_is_refused(datanet: Datanet) -> None:
    policy = QualityPolicy(personal_data_entities=("SHOE_SIZE",))
    with pytest.raises(InvalidArgument) as refused:
        replace(datanet, policy=policy).validate()
    assert [violation.field for violation in refused.value.violations] == ["policy.personal_data_entities"]
