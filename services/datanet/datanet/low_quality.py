"""Text that carries no information: too short, mostly symbols, or repetitive.

The bounds were set on the 11,583 whole, cited procedure texts of MITRE ATT&CK v18.1 (they reject none of these, see
docs/data.md) and on generated gibberish. They fit languages with an alphabet; letters are Unicode letters.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from string import ascii_lowercase

from datanet.contribution import Rejection

VERSION = 1

LOW_QUALITY = "low_quality"
"""Rule id. Records, events and snapshots written before it was renamed have `rubbish`: the same rule, same bounds."""  # old name

MIN_LETTER_RATIO = 0.45
"""Letters among the characters that are not white space."""
MIN_COMPRESSED_RATIO = 0.20
"""Deflated size over size, for texts long enough that the header does not matter. Prose has 0.35 to 0.6."""
COMPRESSION_FROM_BYTES = 300
MAX_WORD_SHARE = 0.40
"""Share of the most frequent word, for texts of at least REPETITION_FROM_WORDS words. In prose, `the` has 0.06."""
REPETITION_FROM_WORDS = 10
MAX_LETTER_RUN = 9
"""Longest run of one letter; `Wooooow` passes."""
MIN_VOWEL_RATIO = 0.15
"""Vowels among basic Latin letters: random keystrokes have few. English has 0.38."""
VOWELS_FROM_LETTERS = 24

_WORD = re.compile(r"\w+")
_RUN = re.compile(rf"([^\W\d_])\1{{{MAX_LETTER_RUN},}}")


def too_short(text: str, min_words: int) -> Rejection | None:
    """Rejects a text of fewer than `min_words` words."""
    words = len(_WORD.findall(text))
    if words >= min_words:
        return None
    return Rejection("too_short", "", f"the text has {words} words; at least {min_words} are needed")


def low_quality(text: str) -> Rejection | None:
    """Rejects gibberish and repetition; the message names the measure and its bound."""
    reason = _few_letters(text) or _repetition(text) or _no_vowels(text)
    return Rejection(LOW_QUALITY, "", reason) if reason else None


def _few_letters(text: str) -> str | None:
    visible = sum(map(len, text.split()))
    letters = sum(map(str.isalpha, text))
    if visible and letters / visible >= MIN_LETTER_RATIO:
        return None
    return f"{letters} of {visible} visible characters are letters; at least {MIN_LETTER_RATIO:.0%} must be"


def _repetition(text: str) -> str | None:
    if _RUN.search(text):
        return f"one letter is repeated more than {MAX_LETTER_RUN} times in a row"
    words = _WORD.findall(text.lower())
    if len(words) >= REPETITION_FROM_WORDS:
        word_share = Counter(words).most_common(1)[0][1] / len(words)
        if word_share > MAX_WORD_SHARE:
            return f"one word is {word_share:.0%} of the text; at most {MAX_WORD_SHARE:.0%} is allowed"
    data = text.encode()
    if len(data) >= COMPRESSION_FROM_BYTES:
        ratio = len(zlib.compress(data, 6)) / len(data)
        if ratio < MIN_COMPRESSED_RATIO:
            return (
                f"the text is repetitive: it compresses to {ratio:.0%} of its size; "
                f"at least {MIN_COMPRESSED_RATIO:.0%} is needed"
            )
    return None


def _no_vowels(text: str) -> str | None:
    lower = text.lower()
    letters = sum(map(lower.count, ascii_lowercase))
    if letters < VOWELS_FROM_LETTERS:
        return None
    ratio = sum(map(lower.count, "aeiouy")) / letters
    if ratio >= MIN_VOWEL_RATIO:
        return None
    return f"{ratio:.0%} of the letters are vowels; at least {MIN_VOWEL_RATIO:.0%} are needed"
