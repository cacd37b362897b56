"""Each rule refuses what it is for and lets pass what it is not for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from datanet.contamination import GateItem, GateItems, read_items
from datanet.definition import SUPPORTED_ENTITIES, Datanet, QualityPolicy
from datanet.quality import RULE_VERSIONS, Rules, Verdict
from servicekit.errors import InvalidArgument

POLICY = QualityPolicy()
Judge = Callable[..., Verdict]

GOOD = "APT28 has exploited CVE-2014-4076, CVE-2015-2387 and CVE-2022-38028 to become root on 10.0.0.1."


@pytest.fixture
def judge(datanet: Datanet, encode: Callable[..., bytes]) -> Judge:
    """The verdict on a text under a policy."""

    def verdict(text: str, policy: QualityPolicy = POLICY, *items: GateItem, **more: str) -> Verdict:
        rules = Rules(datanet.schema, policy, GateItems(items) if items else None)
        return rules.judge(encode(text, **more))

    return verdict


def rule(verdict: Verdict) -> str:
    """The rule that refused, or ""."""
    return verdict.rejection.rule if verdict.rejection else ""


def test_a_report_full_of_names_numbers_and_addresses_passes(judge: Judge) -> None:
    verdict = judge(GOOD)
    assert rule(verdict) == ""
    assert verdict.keep_content


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
def test_rubbish_is_refused(judge: Judge, text: str) -> None:
    assert rule(judge(text)) == "rubbish"


@pytest.mark.parametrize(
    "text",
    [
        "ZxxZ has run cmd.exe /c whoami && net user && ipconfig /all > %TEMP%\\1.txt to learn of its host.",
        "Die Gruppe nutzt öffentlich erreichbare Fernwartungsdienste, um in Netze einzudringen.",
        "Группа использует планировщик задач, чтобы сохранить доступ к системе.",
    ],
)
def test_technical_and_foreign_prose_is_no_rubbish(judge: Judge, text: str) -> None:
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
def test_personal_data_is_refused_and_never_repeated_or_kept(judge: Judge, text: str, kind: str) -> None:
    verdict = judge(text)
    assert rule(verdict) == "personal_data"
    assert verdict.rejection is not None
    assert verdict.rejection.message == f"the text holds {kind}; remove it and send the record again"
    assert not verdict.keep_content


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


def test_personal_data_is_looked_for_in_every_free_field(judge: Judge) -> None:
    verdict = judge(GOOD, source="jane.doe@example.com")
    assert verdict.rejection is not None
    assert (verdict.rejection.rule, verdict.rejection.field) == ("personal_data", "source")


def test_ip_addresses_are_personal_data_only_where_the_policy_says_so(judge: Judge) -> None:
    assert rule(judge(GOOD)) == ""
    assert rule(judge(GOOD, QualityPolicy(personal_data_entities=SUPPORTED_ENTITIES))) == "personal_data"


ITEM = GateItem(
    "hellaswag", "17", "A man is sitting on a roof. He starts pulling up roofing on the roof of it."
)


def test_thirteen_words_of_an_evaluation_item_are_contamination(judge: Judge) -> None:
    copied = "As they say: sitting on a roof, he starts PULLING up roofing on the roof of a house."
    verdict = judge(copied, POLICY, ITEM)
    assert verdict.rejection is not None
    assert verdict.rejection.rule == "contamination"
    assert "item '17' of suite 'hellaswag'" in verdict.rejection.message
    assert verdict.keep_content


def test_twelve_words_of_an_evaluation_item_are_not(judge: Judge) -> None:
    assert rule(judge("On a roof he starts pulling up roofing on the roof and leaves.", POLICY, ITEM)) == ""


def test_a_short_item_is_looked_for_whole_and_a_phrase_not_at_all(judge: Judge) -> None:
    short = GateItem("arc", "1", "Which of these planets has the most moons?")
    phrase = GateItem("arc", "2", "Which of these is a metal?")
    assert (
        rule(judge("He asked which of these planets has the most moons.", POLICY, short)) == "contamination"
    )
    assert rule(judge("Which of these is a metal? Nobody knew the answer.", POLICY, phrase)) == ""


def test_gate_items_are_read_from_json_lines() -> None:
    items = list(
        read_items(b'{"suite": "s", "item": "1", "text": "t"}\n\n{"suite": "s", "item": 2, "text": "u"}\n')
    )
    assert items == [GateItem("s", "1", "t"), GateItem("s", "2", "u")]


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"suite": "s"}', b"\xff"])
def test_a_broken_gate_item_is_named_by_its_line(line: bytes) -> None:
    with pytest.raises(InvalidArgument, match="line 2"):
        list(read_items(b'{"suite": "s", "item": "1", "text": "t"}\n' + line))


def test_bytes_that_are_no_record_are_judged_by_their_form_and_not_kept(datanet: Datanet) -> None:
    verdict = Rules(datanet.schema, datanet.policy, None).judge(b"\xff")
    assert verdict.record is None
    assert rule(verdict) == "not_utf8"
    assert not verdict.keep_content


def test_every_rule_has_a_version() -> None:
    assert set(RULE_VERSIONS) >= {"form", "too_short", "rubbish", "personal_data", "contamination"}


def test_a_policy_that_cannot_be_kept_is_refused(datanet: Datanet) -> None:
    policy = QualityPolicy(personal_data_entities=("SHOE_SIZE",))
    with pytest.raises(InvalidArgument) as refused:
        replace(datanet, policy=policy).validate()
    assert [violation.field for violation in refused.value.violations] == ["policy.personal_data_entities"]
