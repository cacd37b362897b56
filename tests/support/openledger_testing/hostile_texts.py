"""Texts that make a pattern with an unbounded repetition slow, and the processor time that a piece of work takes."""

from __future__ import annotations

import time
from collections.abc import Callable

UNITS = {
    "dots and hyphens before a sign": "a-b-c.d-",
    "signs": "@",
    "signs between letters": "a@",
    "addresses of no domain": "ab@cd.ef-",
    "disguised signs": "x [at] ",
    "spelled out": "x at y dot z ",
    "long words": "abcdefgh",
    "words": "the quick brown fox jumps over a lazy dog ",
    "digits": "123456789",
    "spaced digits": "1 2 ",
    "one-letter words": "a b c d e i o u y ",
    "one-letter words with points": "a. b, c! d? e; ",
    "words that differ": "".join(f"w{number:x}e " for number in range(9000)),
    "words and spaced digits": "the quick brown fox 1 2 3 4 ",
    "accents": "\u00e9t\u00e9 ",
    "look-alikes": "t\u0435xt \u0430nd ",
    "overrides": "\u202ea\u202c",
    "nested overrides": "\u202ea",
    "overrides and isolates": "\u202ea\u2069\u2067b ",
    "bars": "a|",
    "named keys": "seed ",
    "bearers": "bearer ",
    "addresses with names": "://a:b",
    "the beginning of an item": "Which of the following is the best explanation of ",
    "card-like": "4111 1111 1111 1112 ",
    "one card-like row": "4111 ",
    "nine digits": "536228468 ",
    "eleven digits": "44051401358 ",
    "iban-like": "DE00 0000 0000 ",
    "letters and digits": "ab12cd34 ",
    "plus signs": "+1 2 3 4 5 6 ",
    "phones": "phone 0 phone 01 ",
    "addresses": "1.2.3.999 1:2:3 ",
    "colons": "::",
    "key headings": "-----BEGIN PRIVATE KEY-----",
    "token starts": "eyJaaaaaaaaa.",
    "token starts, hyphens": "eyJaaaaaaaaa-",
    "issued starts": "ghp_sk-AKIA",
    "assignments": "password=a ",
    "assignments in a row": "password=",
    "spaces": " ",
    "growing characters": "\ufdfa ",
    "invisible characters": "\u200b",
    "one letter": "a",
    "quotes": '\\"',
    "brackets": '["',
}


def text_of(unit: str, size: int) -> str:
    """Returns a text of this many bytes of UTF-8, or a few fewer."""
    return (unit * (size // len(unit.encode()) + 1)).encode()[:size].decode(errors="ignore")


def cpu_s(work: Callable[[], object], runs: int = 3) -> float:
    """Returns the least processor time of some runs."""
    times = []
    for _ in range(runs):
        begun = time.thread_time()
        work()
        times.append(time.thread_time() - begun)
    return min(times)
