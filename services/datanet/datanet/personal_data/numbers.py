"""Payment cards, bank accounts, phone numbers and IP addresses."""

from __future__ import annotations

import contextlib
import re
from ipaddress import IPv6Address

from datanet.personal_data import checksums
from datanet.personal_data.folding import FoldedText

_SEPARATOR = r"[ .\-]{0,2}"
# Looked for at every number, also inside a candidate that failed: "2023 4539 1488 0343 6467".
_CARD = re.compile(
    rf"[2-6](?<![\d.].)(?=(\d{{3}}{_SEPARATOR}\d{{4}}{_SEPARATOR}\d{{4}}{_SEPARATOR}\d{{1,7}}"
    rf"|\d{{3}}{_SEPARATOR}\d{{6}}{_SEPARATOR}\d{{4,5}})(?!\d))"
)
_BRANDS = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|(?:5[1-5]|2[2-7])\d{14}|3[47]\d{13}|3[068]\d{12}|(?:6011|65\d\d|64[4-9]\d)\d{12}"
    r"|35\d{14}|(?:50|5[6-9]|6\d)\d{10,17}"
)

_IBAN_START = re.compile(r"[A-Za-z](?<![A-Za-z0-9].)[A-Za-z]\d{2}")
_IBAN = re.compile(r"[A-Za-z]{2}\d{2}(?:[ \-]?[A-Za-z0-9]){11,30}")
_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28,
    "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18,
    "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22,
    "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20,
    "LU": 20, "LV": 21, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18, "NO": 15,
    "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SC": 31, "SE": 24, "SI": 19,
    "SK": 24, "SM": 27, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
}  # fmt: skip
"""Characters by country (SWIFT's registry of IBANs)."""

_INTERNATIONAL = re.compile(r"\+(?<![\w+].)[1-9](?:[ ().\-/]{0,2}\d){7,14}(?!\d)")
_NORTH_AMERICAN = re.compile(
    r"[(1-9](?<![\w.\-/].)(?:(?<=1)[\-. ]\(?[2-9]\d\d|(?<=\()[2-9]\d\d|(?<=[2-9])\d\d)"
    r"(?:\) ?|[\-. ])[2-9]\d{2}[\-. ]\d{4}(?![\w\-])"
)
_SPOKEN_WORDS = ("tel", "phone", "mobile", "call", "fax", "handy", "téléphone", "teléfono")
_SPOKEN = re.compile(
    r"\b(?:tel|telephone|phone|mobile|call|fax|handy|telefon|téléphone|teléfono|telefono)\b"
    r"[\w ]{0,12}[.:]?\s{0,2}\(?0\d{1,4}\)?(?:[ .\-/]?\d){5,10}(?!\d)"
)

_IPV4 = re.compile(r"\d(?<![\w.].)\d{0,2}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?!\w|\.\d)")
_IPV6 = re.compile(r"[0-9a-f:](?<![\w:.].)(?<!::)[0-9a-f]{0,3}:?[0-9a-f]{0,4}:[0-9a-f:]{0,32}(?![\w:])")


def find_card(folded: FoldedText) -> int | None:
    """Returns where the first number of a payment card begins: a known issuer's, with its check digit."""
    tried: set[str] = set()
    for match in _CARD.finditer(folded.text):
        written = match[0] + match[1]
        if written in tried:
            continue
        tried.add(written)
        digits = written.replace(" ", "").replace("-", "").replace(".", "")
        if _BRANDS.fullmatch(digits) and checksums.luhn(digits):
            return match.start()
    return None


def find_iban(folded: FoldedText) -> int | None:
    """Returns where the first IBAN begins: a country's length, with its check digits."""
    text = folded.text
    for start in _IBAN_START.finditer(text):
        length = _IBAN_LENGTHS.get(start[0][:2].upper())
        match = length and _IBAN.match(text, start.start())
        if not length or not match:
            continue
        compact = match[0].replace(" ", "").replace("-", "")
        if len(compact) < length or not _ends_there(text, start.start(), length):
            continue
        if checksums.iban(compact[:length]):
            return start.start()
    return None


def find_phone(folded: FoldedText) -> int | None:
    """Returns where the first phone number begins: with a country code, in the North American form, or named as one."""
    matches = [_NORTH_AMERICAN.search(folded.text)]
    if "+" in folded.text:
        matches.append(_INTERNATIONAL.search(folded.text))
    if folded.has(*_SPOKEN_WORDS):
        matches.append(_SPOKEN.search(folded.lower))
    return min((match.start() for match in matches if match is not None), default=None)


def find_ip(folded: FoldedText) -> int | None:
    """Returns where the first IP address begins."""
    starts = [_first_ipv4(folded.text)]
    if ":" in folded.text:
        starts.append(_first_ipv6(folded.lower))
    return min((start for start in starts if start is not None), default=None)


def _first_ipv4(text: str) -> int | None:
    for match in _IPV4.finditer(text):
        if all(int(part) < 256 for part in match[0].split(".")):
            return match.start()
    return None


def _first_ipv6(text: str) -> int | None:
    tried: set[str] = set()
    for match in _IPV6.finditer(text):
        if match[0] in tried or match[0].count(":") < 2:
            continue
        tried.add(match[0])
        with contextlib.suppress(ValueError):
            IPv6Address(match[0])
            return match.start()
    return None


def _ends_there(text: str, start: int, length: int) -> bool:
    """Returns whether a word ends after this many letters and digits."""
    at = start
    while length:
        length -= text[at].isalnum()
        at += 1
    return not text[at : at + 1].isalnum()
