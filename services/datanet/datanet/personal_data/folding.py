"""One spelling of a text for the recognisers.

Full-width letters and digits of other scripts become ASCII where Unicode says they are the same character, and invisible
characters disappear. Each character becomes at most one: Unicode's own NFKC makes up to 18 of one, which would let a
stranger send a text that grows here.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cached_property


class _Fold(dict[int, int | None]):
    """Fills itself with the characters it is asked for: at most one entry for each of Unicode's."""

    def __missing__(self, code: int) -> int | None:
        character = chr(code)
        same = unicodedata.normalize("NFKC", character)
        if unicodedata.category(character) == "Cf":
            result = None
        elif (digit := unicodedata.decimal(character, None)) is not None:
            result = ord("0") + digit
        else:
            result = ord(same) if len(same) == 1 else code
        self[code] = result
        return result


_FOLD = _Fold()


class FoldedText:
    """A text in one spelling; it is never longer than what it was made of."""

    def __init__(self, text: str) -> None:
        self.text = text if text.isascii() else text.translate(_FOLD)
        self._matches: dict[re.Pattern[str], list[re.Match[str]]] = {}

    @cached_property
    def lower(self) -> str:
        """The text in lower case: character by character, so that places in it are places in the text."""
        lower = self.text.lower()
        return lower if len(lower) == len(self.text) else "".join(map(_lower, self.text))

    def matches(self, start: re.Pattern[str], whole: re.Pattern[str]) -> list[re.Match[str]]:
        """Returns the matches of `whole` at each place where the cheaper pattern `start` matches; they may overlap.

        Recognisers that ask for the same pattern share them.
        """
        if whole not in self._matches:
            found = (whole.match(self.text, place.start()) for place in start.finditer(self.text))
            self._matches[whole] = [match for match in found if match is not None]
        return self._matches[whole]

    def has(self, *words: str) -> bool:
        """Returns whether one of the words occurs, in any case: far cheaper than a pattern."""
        return any(word in self.lower for word in words)


def _lower(character: str) -> str:
    lower = character.lower()
    return lower if len(lower) == 1 else character
