"""Eight ways to change a text's code points and not its meaning to a reader, for tests of what counts as the same text."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping

_CYRILLIC = str.maketrans("aceiopsxyABCEHIKMOPTXSJ", "асеіорѕхуАВСЕНІКМОРТХЅЈ")
_FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}


def _accented(text: str) -> str:
    return unicodedata.normalize("NFC", "".join(c + "\u0301" if c.isalpha() else c for c in text))


DISGUISES: Mapping[str, Callable[[str], str]] = {
    "zero_width": lambda text: "\u200b".join(text),
    "soft_hyphen": lambda text: "\u00ad".join(text),
    "cyrillic": lambda text: text.translate(_CYRILLIC),
    "full_width": lambda text: text.translate(_FULL_WIDTH),
    "diacritics": _accented,
    "joiners": lambda text: "\u2060".join("\u200d".join(word) for word in text.split(" ")).replace(
        "\u2060", " \u2060"
    ),
    "bidi": lambda text: "\u202e" + text[::-1] + "\u202c",
    "case_and_space": lambda text: "\u00a0\u2003 ".join(text.upper().split()),
}
