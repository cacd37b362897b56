"""Writes identity/folding.txt: what each character of Unicode folds to, so that every machine and every Python folds alike.

    pip install unicodedata2==18.0.0     # Unicode's data of that version; Python's own is older
    python tools/write_folding.py

A character's image is found from Unicode's own data, in this order: the ASCII letter or digit that its name says it is a form of
(`MODIFIER LETTER SMALL B`, `LATIN LETTER SMALL CAPITAL B`, `REGIONAL INDICATOR SYMBOL LETTER B`); then look-alikes
(`libs/identity/confusables.txt`), compatibility decomposition and case, until nothing changes. What is not shown, marks,
private and unassigned characters have no image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import unicodedata2 as unicode  # type: ignore[import-not-found]  # only here

IDENTITY = Path(__file__).parents[1] / "libs/identity"
OUTPUT = IDENTITY / "identity/folding.txt"
_HEAD = """\
# What characters fold to, from the data and confusables.txt of Unicode {version}. Written by tools/write_folding.py.
# `-first last`: not kept. `character image`: any context. `^character image`: a capital in a text that is mostly Latin.
# Copyright 1991-2026 Unicode, Inc. Used under the Unicode License v3, https://www.unicode.org/license.txt
"""

_LAST = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)
_HANGUL = range(0xAC00, 0xD7A4)
"""Syllables are decomposed by arithmetic, in `identity.folding`."""

# Default_Ignorable_Code_Point (DerivedCoreProperties.txt) of letters; marks, format and unassigned characters are dropped anyway.
_IGNORABLE = frozenset((0x115F, 0x1160, 0x3164, 0xFFA0))
# Shown as nothing although their category does not say so: U+FFFC, tatweel, a null notehead, blanks of hieroglyphs, of
# Khitan and of Phags-pa, skin tones.
_EMPTY_NAMES = re.compile(
    r"OBJECT REPLACEMENT CHARACTER|ARABIC TATWEEL|.*\bNULL NOTEHEAD|EGYPTIAN HIEROGLYPH (?:FULL|HALF) BLANK"
    r"|EMOJI MODIFIER .*|KHITAN SMALL SCRIPT FILLER|.*\bFILLER|NKO LAJANYALAN|.*\bINVISIBLE .*"
)
_BLANK = 0x2800
"""BRAILLE PATTERN BLANK is shown as a space."""

_LONGEST = 6
"""Letters of an image. Two Arabic ligatures of whole phrases have more, and stay: a stranger could make a text grow with them."""

_LETTER = re.compile(
    r"(?:LATIN (?:LETTER )?SMALL CAPITAL(?: LETTER)?|LATIN (?:SUBSCRIPT |SUPERSCRIPT )?(?:SMALL|CAPITAL) LETTER"
    r"|(?:MODIFIER LETTER|SUPERSCRIPT LATIN|SUBSCRIPT LATIN) (?:SMALL CAPITAL|SMALL|CAPITAL)(?: LETTER)?"
    r"|FULLWIDTH LATIN (?:SMALL|CAPITAL) LETTER|OUTLINED LATIN CAPITAL LETTER"
    r"|(?:NEGATIVE |CROSSED NEGATIVE |DOUBLE )?(?:CIRCLED|SQUARED|PARENTHESIZED|TORTOISE SHELL BRACKETED)(?: ITALIC| BOLD)?"
    r" LATIN (?:SMALL|CAPITAL) LETTER|REGIONAL INDICATOR SYMBOL LETTER|MATHEMATICAL [A-Z\- ]*(?:SMALL|CAPITAL)"
    r"|(?:DOUBLE-STRUCK|BLACK-LETTER|SCRIPT)(?: ITALIC)? (?:SMALL|CAPITAL)) (?:SCRIPT )?([A-Z])(?: WITH (?!SMALL LETTER).*)?"
)
_SPELLED = {
    "LATIN SMALL LETTER ALPHA": "a",
    "LATIN SMALL LETTER DOTLESS I": "i",
    "LATIN SMALL LETTER DOTLESS J": "j",
    "LATIN SMALL LETTER LONG S": "s",
    "MODIFIER LETTER SMALL ALPHA": "a",
    "MODIFIER LETTER SMALL SCRIPT G": "g",
    "LATIN SMALL LETTER KRA": "k",
    "LATIN LETTER SMALL CAPITAL BARRED B": "b",
    "MODIFIER LETTER SMALL CAPITAL BARRED B": "b",
    "MODIFIER LETTER CAPITAL BARRED B": "b",
    "MODIFIER LETTER SMALL DOTLESS J WITH STROKE": "j",
}


def main() -> None:
    """Writes the table; it takes no arguments."""
    if unicode.unidata_version != "18.0.0":
        raise SystemExit(f"unicodedata2 has Unicode {unicode.unidata_version}; confusables.txt has 18.0.0")
    folding = Folding(_read_prototypes())
    images = folding.images()
    lines = [
        f"-{first:x} {last:x}"
        for first, last in _ranges(code for code in range(_LAST + 1) if folding.dropped(code))
    ]
    lines += [_line("", code, image) for code, image in images.items() if image != chr(code)]
    lines += [_line("^", code, image) for code, image in folding.capitals(images).items()]
    OUTPUT.write_text(_HEAD.format(version=unicode.unidata_version) + "\n".join(lines) + "\n", "utf-8")


class Folding:
    """Finds images from Unicode's data."""

    def __init__(self, prototypes: dict[int, str]) -> None:
        self._prototypes = prototypes

    def dropped(self, code: int) -> bool:
        """Returns whether a character is not kept: it is not shown, or it is a mark on another one, or it is none."""
        character = chr(code)
        if character.isspace():
            return False
        return (
            unicode.category(character) in ("Cc", "Cf", "Cn", "Co", "Cs", "Mn", "Mc", "Me")
            or code in _IGNORABLE
            or _EMPTY_NAMES.fullmatch(unicode.name(character, "")) is not None
        )

    def images(self) -> dict[int, str]:
        """Returns the image of each character that is kept, other than Hangul syllables. An image's image is itself."""
        kept = [code for code in range(_LAST + 1) if code not in _HANGUL and not self.dropped(code)]
        images = {code: self._image(chr(code)) for code in kept}
        self._spread(images)
        for _ in range(16):
            again = {
                code: "".join(images.get(ord(each), "") for each in image) for code, image in images.items()
            }
            if again == images:
                return {
                    code: image if len(image) <= _LONGEST else chr(code) for code, image in images.items()
                }
            images = again
        raise SystemExit("images do not settle")

    def capitals(self, images: dict[int, str]) -> dict[int, str]:
        """Returns capitals that look like another Latin letter than their small forms do: Greek eta is H, and in small n."""
        conflicting = {}
        for code in self._prototypes:
            if code >= 0x80 and chr(code).casefold() != chr(code) and not _named(chr(code)):
                seen = "".join(images.get(ord(each), "") for each in self._settle(chr(code)))
                if _is_plain(seen) and seen != images.get(code):
                    conflicting[code] = seen
        return dict(sorted(conflicting.items()))

    def _image(self, character: str) -> str:
        if ord(character) < 0x80:
            small = character.lower()
            return (
                self._prototypes.get(ord(small), small)
                if small.isalnum()
                else " "
                if small.isspace()
                else small
            )
        if character.isspace() or ord(character) == _BLANK:
            return " "
        named = _named(character)
        if named:
            return named
        small = character.casefold()
        candidates = [self._settle(small), self._settle(small.upper()), self._settle(self._decomposed(small))]
        digit = unicode.digit(character, None)
        if digit is not None:
            candidates.append(str(digit))
        return next((each for each in candidates if _is_plain(each)), candidates[0])

    def _spread(self, images: dict[int, str]) -> None:
        """Gives what a form of an ASCII letter looks like the same image: a superscript 1 and its Canadian look-alike."""
        for code, prototype in self._prototypes.items():
            if len(prototype) == 1 and code >= 0x80 and _is_plain(images.get(code, "")):
                other = images.get(ord(prototype), "")
                if other and not other.isascii() and len(images[code]) == 1:
                    images[ord(prototype)] = images[code]

    def _settle(self, text: str) -> str:
        """Returns the text once look-alikes, case and decomposition change nothing more in it."""
        for _ in range(16):
            before = text
            text = self._decomposed(text.translate(self._prototypes))
            if text == before:
                break
        return text

    def _decomposed(self, text: str) -> str:
        decomposed = unicode.normalize("NFKD", text)
        return "".join(each for each in decomposed if not self.dropped(ord(each))).casefold()


def _named(character: str) -> str:
    """Returns the ASCII letter that a character is a form of by its name."""
    name = unicode.name(character, "")
    found = _LETTER.fullmatch(name)
    return found[1].lower() if found else _SPELLED.get(name, "")


def _is_plain(image: str) -> bool:
    return image.isascii() and image.isalnum()


def _read_prototypes() -> dict[int, str]:
    """What characters look like. ASCII punctuation stays: words are separated by it. Case makes i one with I, which is like l."""
    prototypes = {ord("i"): "l"}
    for line in (IDENTITY / "confusables.txt").read_text("utf-8").splitlines():
        if not line.startswith("#"):
            code, *prototype = (int(each, 16) for each in line.split())
            if code >= 0x80 or chr(code).isalnum():
                prototypes[code] = "".join(map(chr, prototype))
    return prototypes


def _ranges(codes: Iterator[int]) -> Iterator[tuple[int, int]]:
    first = last = next(codes)
    for code in codes:
        if code != last + 1:
            yield first, last
            first = code
        last = code
    yield first, last


def _line(mark: str, code: int, image: str) -> str:
    return f"{mark}{code:x} {' '.join(f'{ord(each):x}' for each in image)}".rstrip()


if __name__ == "__main__":
    main()
