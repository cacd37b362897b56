"""Numbers that a state gives a person: identity, social insurance, tax.

A number counts if its check digits agree. Where one check digit is all there is, every tenth number would agree: then one
of the number's names must stand before it. Sources: the issuing bodies' descriptions, as python-stdnum collects them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from datanet.personal_data import checksums
from datanet.personal_data.checksums import weighted
from datanet.personal_data.folding import FoldedText

_CONTEXT_CHARS = 60
"""How far before a number its name may stand."""

# A cheap pattern for where a number can begin, then one for all shapes, so that a text is read once. A group is a shape;
# several numbers can have it. All repetitions are bounded.
# What is cheap to ask before: most of a shape's first eight characters.
_START = re.compile(
    r"[A-Za-z0-9](?<![\w.+\-].)(?=(?:\d\d[\d .\-]|\d\.\d| \d\d)[\d .\-+AB]{4}"
    r"|[A-Za-z]{5}\d\d[A-Za-z]\d|[A-Za-z]{3}\d{6}|[A-Za-z] ?\d\d ?\d\d|-?\d{7})"
)
_SHAPES = re.compile(
    r"(?:"
    r"(?P<d324>\d{3}([\- ])\d{2}\2\d{4})"
    r"|(?P<d3332>\d{3}\.\d{3}\.\d{3}-\d{2})"
    r"|(?P<d334>\d{3}[\- ]\d{3}[\- ]\d{4})"
    r"|(?P<d333>\d{3}[\- .]\d{3}[\- .]\d{3})"
    r"|(?P<d444>\d{4}[\- ]\d{4}[\- ]\d{4})"
    r"|(?P<nir>[12] ?\d{2} ?\d{2} ?(?:\d{2}|2[AB]) ?\d{3} ?\d{3} ?\d{2})"
    r"|(?P<d64>\d{6}[\-+]\d{4})"
    r"|(?P<hetu>\d{6}[\-+A]\d{3}[0-9A-Y])"
    r"|(?P<d67>\d{6}-[1-8]\d{6})"
    r"|(?P<ahv>756\.\d{4}\.\d{4}\.\d{2})"
    r"|(?P<niss>\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2})"
    r"|(?P<dni>(?:\d{8}|[XYZ]-?\d{7})[\- ]?[A-HJ-NP-TV-Z])"
    r"|(?P<fiscale>[A-Za-z]{6}\d{2}[A-Za-z]\d{2}[A-Za-z]\d{3}[A-Za-z])"
    r"|(?P<curp>[A-Z]{4}\d{6}[HM][A-Z]{5}[0-9A-Z]\d)"
    r"|(?P<nino>[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D])"
    r"|(?P<d18>\d{17}[\dXx])"
    r"|(?P<plain>\d{9,13})"
    r")(?!\w)"
)


@dataclass(frozen=True)
class _Number:
    """A kind of number: whether text of its shape is one, and the names of which one must stand before it (none: no name)."""

    is_valid: Callable[[str], bool]
    names: tuple[str, ...] = ()


def find_us_ssn(folded: FoldedText) -> int | None:
    """Returns where the first US social security number begins: with hyphens, or otherwise named as one."""
    is_named = folded.has(*_SSN_NAMES)
    for match in _shapes(folded):
        if match.lastgroup not in ("d324", "plain"):
            continue
        written = match[0]
        if not is_named and "-" not in written:
            continue
        digits = written.replace("-", "").replace(" ", "")
        if len(digits) != 9 or not _is_ssn(digits):
            continue
        if "-" in written or _is_named(_before(folded, match), _SSN_NAMES):
            return match.start()
    return None


def find(folded: FoldedText) -> int | None:
    """Returns where the first national number begins."""
    named = {name for name in _ALL_NAMES if name in folded.lower}
    known: dict[str, list[_Number]] = {}
    for match in _shapes(folded):
        kinds = _KINDS.get(match.lastgroup or "")
        if kinds is None:
            continue
        written = match[0]
        possible = known.get(written)
        if possible is None:
            possible = known[written] = _possible(written, kinds, named)
        for number in possible:
            if not number.names or _is_named(_before(folded, match), number.names):
                return match.start()
    return None


def _possible(written: str, kinds: Mapping[int, list[_Number]], named: set[str]) -> list[_Number]:
    """Returns what a text of a shape can be: its check digits agree, and one of its names, if it needs one, stands somewhere."""
    compact = written if written.isalnum() else "".join(filter(str.isalnum, written))
    return [
        number
        for number in kinds.get(len(compact), ())
        if not (number.names and named.isdisjoint(number.names)) and number.is_valid(compact.upper())
    ]


def _shapes(folded: FoldedText) -> list[re.Match[str]]:
    return folded.matches(_START, _SHAPES)


def _before(folded: FoldedText, match: re.Match[str]) -> str:
    return folded.lower[max(0, match.start() - _CONTEXT_CHARS) : match.start()]


def _is_named(before: str, names: tuple[str, ...]) -> bool:
    """Returns whether a name stands before a number, as a word or the beginning of one."""
    for name in names:
        at = before.find(name)
        while at >= 0:
            if at == 0 or not before[at - 1].isalnum():
                return True
            at = before.find(name, at + 1)
    return False


def _is_ssn(digits: str) -> bool:
    return (
        digits[:3] not in ("000", "666") and digits[0] != "9" and digits[3:5] != "00" and digits[5:] != "0000"
    )


_SSN_NAMES = ("ssn", "social security")


def _is_date(digits: str) -> bool:
    """Returns whether YYMMDD or DDMMYY can be a date."""
    first, month, last = int(digits[:2]), int(digits[2:4]), int(digits[4:6])
    return 1 <= month <= 12 and (1 <= first <= 31 or 1 <= last <= 31)


def _cpf(digits: str) -> bool:
    if len(set(digits)) == 1:
        return False
    first = weighted(digits, range(10, 1, -1)) * 10 % 11 % 10
    second = weighted(digits, range(11, 1, -1)) * 10 % 11 % 10
    return digits[9:] == f"{first}{second}"


def _pesel(digits: str) -> bool:
    day, month = int(digits[4:6]), int(digits[2:4]) % 20
    return (
        1 <= day <= 31 and 1 <= month <= 12 and weighted(digits, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)) % 10 == 0
    )


def _norwegian(digits: str) -> bool:
    if not _is_month(digits[2:4]) or int(digits[:2]) % 40 not in range(1, 32):
        return False
    return not (
        weighted(digits, (3, 7, 6, 1, 8, 9, 4, 5, 2, 1)) % 11
        or weighted(digits, (5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1)) % 11
    )


def _is_month(digits: str) -> bool:
    return 1 <= int(digits) <= 12


def _nir(text: str) -> bool:
    number = text.replace("2A", "19").replace("2B", "18")
    return number.isdigit() and 97 - int(number[:13]) % 97 == int(number[13:])


def _dni(text: str) -> bool:
    number = text[:-1].translate(str.maketrans("XYZ", "012"))
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == text[-1]


_ODD = dict(
    zip(
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22,
         25, 24, 23),
        strict=True,
    )
)  # fmt: skip


def _fiscale(text: str) -> bool:
    odd = sum(_ODD[character] for character in text[0:15:2])
    even = sum(int(each) if each.isdigit() else ord(each) - 65 for each in text[1:15:2])
    return text[8] in "ABCDEHLMPRST" and chr(65 + (odd + even) % 26) == text[-1]


def _hetu(text: str) -> bool:
    digits = text.replace("A", "", 1) if text[6] == "A" else text
    return digits[:9].isdigit() and "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(digits[:9]) % 31] == digits[-1]


def _niss(digits: str) -> bool:
    check = int(digits[9:])
    return check in (97 - int(digits[:9]) % 97, 97 - int("2" + digits[:9]) % 97)


def _resident_id(text: str) -> bool:
    """China's 18 characters: a date in the middle, ISO 7064 MOD 11-2 at the end."""
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    return (
        text[6:8] in ("18", "19", "20")
        and _is_month(text[10:12])
        and "10X98765432"[weighted(text, weights) % 11] == text[-1]
    )


def _ahv(digits: str) -> bool:
    return weighted(digits, (1, 3) * 6 + (1,)) % 10 == 0


def _bsn(digits: str) -> bool:
    return weighted(digits, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0


def _tfn(digits: str) -> bool:
    return weighted(digits, (1, 4, 3, 7, 5, 8, 6, 9, 10)) % 11 == 0


def _nif(digits: str) -> bool:
    return (11 - weighted(digits[:8], range(9, 1, -1)) % 11) % 11 % 10 == int(digits[8])


def _kinds() -> Iterator[tuple[tuple[str, int], _Number]]:
    eleven = (
        _Number(_cpf, ("cpf", "cadastro")),
        _Number(_pesel, ("pesel",)),
        _Number(checksums.iso7064_11_10, ("steuer", "idnr", "tin", "tax")),
        _Number(_norwegian),
        _Number(_niss, ("niss", "insz", "rijksregister", "registre national")),
    )
    for number in eleven:
        yield ("plain", 11), number
    for shape in ("plain", "d333"):
        yield (shape, 9), _Number(_bsn, ("bsn", "burgerservice", "sofi"))
        yield (shape, 9), _Number(checksums.luhn, ("sin", "social insurance"))
        yield (shape, 9), _Number(_tfn, ("tfn", "tax file"))
        yield (shape, 9), _Number(_nif, ("nif", "contribuinte"))
    for shape in ("plain", "d334"):
        yield (shape, 10), _Number(lambda d: weighted(d, range(10, 0, -1)) % 11 == 0, ("nhs",))
    for shape in ("plain", "d444"):
        yield (shape, 12), _Number(checksums.verhoeff, ("aadhaar", "aadhar", "uidai", "आधार"))
    yield ("plain", 12), _Number(lambda d: _is_date(d[2:8]) and checksums.luhn(d[2:]), ("personnummer",))
    yield ("plain", 13), _Number(lambda d: _is_date(d) and checksums.luhn(d), ("identity", "id number"))
    yield ("plain", 13), _Number(_ahv, ("ahv", "avs", "nss"))
    yield ("d3332", 11), _Number(_cpf)
    yield ("nir", 15), _Number(_nir)
    yield ("d64", 10), _Number(lambda d: _is_date(d) and checksums.luhn(d))
    yield ("d64", 10), _Number(_is_date, ("cpr", "personnummer"))
    yield ("hetu", 10), _Number(_hetu)
    yield ("hetu", 11), _Number(_hetu)
    yield ("d67", 13), _Number(_is_date, ("rrn", "resident", "주민"))
    yield ("ahv", 13), _Number(_ahv)
    yield ("niss", 11), _Number(_niss)
    yield ("dni", 9), _Number(_dni)
    yield ("fiscale", 16), _Number(_fiscale)
    yield ("curp", 18), _Number(lambda text: _is_date(text[4:10]))
    yield ("nino", 9), _Number(lambda text: text[:2] not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ"))
    yield ("d18", 18), _Number(_resident_id)


_KINDS: dict[str, dict[int, list[_Number]]] = {}
"""By shape and number of letters and digits."""
for (_shape, _length), _kind in _kinds():
    _KINDS.setdefault(_shape, {}).setdefault(_length, []).append(_kind)
_ALL_NAMES = frozenset(
    name
    for kinds in _KINDS.values()
    for numbers in kinds.values()
    for number in numbers
    for name in number.names
)
