"""Text that is no text: too short, mostly signs, or the same thing over and over.

The bounds were set on the 11,583 whole, cited procedure texts of MITRE ATT&CK v18.1 (none is rubbish by them, see
docs/data.md) and on generated rubbish. They are for languages with an alphabet; letters are Unicode letters.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter

from datanet.contribution import Rejection

VERSION = 1

MIN_LETTER_RATIO = 0.45
"""Letters among the characters that are not white space."""
MIN_COMPRESSED_RATIO = 0.20
"""Deflated size over size, for texts long enough that the header does not matter. Prose has 0.35 to 0.6."""
COMPRESSION_FROM_BYTES = 300
MAX_WORD_SHARE = 0.40
"""Share of the most frequent word, from REPETITION_FROM_WORDS words on. `the` has 0.06 in prose."""
REPETITION_FROM_WORDS = 10
MAX_LETTER_RUN = 9
"""Longest run of one letter; `Wooooow` passes."""
MIN_VOWEL_RATIO = 0.15
"""Vowels among basic Latin letters: hits of a fist on a keyboard have few. English has 0.38."""
VOWELS_FROM_LETTERS = 24

_WORD = re.compile(r"\w+")
_RUN = re.compile(rf"([^\W\d_])\1{{{MAX_LETTER_RUN},}}")
_LATIN = re.compile(r"[a-z]")
_VOWEL = re.compile(r"[aeiouy]")


def too_short(text: str, min_words: int) -> Rejection | None:
    """Refuses fewer than `min_words` words."""
    words = len(_WORD.findall(text))
    if words >= min_words:
        return None
    return Rejection("too_short", "", f"the text has {words} words; at least {min_words} are needed")


def rubbish(text: str) -> Rejection | None:
    """Refuses text that no one wrote to be read; the message says by which measure."""
    reason = _few_letters(text) or _repetition(text) or _no_vowels(text)
    return Rejection("rubbish", "", reason) if reason else None


def _few_letters(text: str) -> str | None:
    visible = sum(not character.isspace() for character in text)
    letters = sum(character.isalpha() for character in text)
    if visible and letters / visible >= MIN_LETTER_RATIO:
        return None
    return f"{letters} of {visible} visible characters are letters; at least {MIN_LETTER_RATIO:.0%} must be"


def _repetition(text: str) -> str | None:
    if _RUN.search(text):
        return f"one letter stands more than {MAX_LETTER_RUN} times in a row"
    words = _WORD.findall(text.lower())
    if len(words) >= REPETITION_FROM_WORDS:
        word_share = Counter(words).most_common(1)[0][1] / len(words)
        if word_share > MAX_WORD_SHARE:
            return f"one word is {word_share:.0%} of the text; at most {MAX_WORD_SHARE:.0%} may be"
    data = text.encode()
    if len(data) >= COMPRESSION_FROM_BYTES:
        ratio = len(zlib.compress(data, 6)) / len(data)
        if ratio < MIN_COMPRESSED_RATIO:
            return f"the text repeats itself: it compresses to {ratio:.0%} of its size"
    return None


def _no_vowels(text: str) -> str | None:
    lower = text.lower()
    letters = len(_LATIN.findall(lower))
    if letters < VOWELS_FROM_LETTERS:
        return None
    ratio = len(_VOWEL.findall(lower)) / letters
    if ratio >= MIN_VOWEL_RATIO:
        return None
    return f"{ratio:.0%} of the letters are vowels; words have at least {MIN_VOWEL_RATIO:.0%}"
