"""Check digits. Each function takes ASCII digits (where not said otherwise) and returns whether they agree."""

from __future__ import annotations

from collections.abc import Sequence

_TWICE = bytes(48 + sum(divmod(2 * (code - 48), 10)) if 48 <= code < 58 else code for code in range(256))


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B: payment cards, and several national numbers."""
    data = digits.encode()
    total = sum(data[-1::-2]) + sum(data[-2::-2].translate(_TWICE)) - 48 * len(data)
    return total % 10 == 0


def weighted(digits: str, weights: Sequence[int]) -> int:
    """Returns the sum of the first digits, each times its weight."""
    return sum((ord(digit) - 48) * weight for digit, weight in zip(digits, weights, strict=False))


def iban(compact: str) -> bool:
    """ISO 13616: letters are 10 to 35, and the first four characters stand last; modulo 97 it is 1."""
    moved = compact[4:] + compact[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def iso7064_11_10(digits: str) -> bool:
    """ISO 7064, MOD 11,10: the German tax number."""
    product = 10
    for digit in digits[:-1]:
        total = (int(digit) + product) % 10 or 10
        product = total * 2 % 11
    return (11 - product) % 10 == int(digits[-1])


_DIHEDRAL = (
    "0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
    "5987604321", "6598710432", "7659821043", "8765932104", "9876543210",
)  # fmt: skip
_PERMUTED = (
    "0123456789", "1576283094", "5803796142", "8916043527", "9453126870", "4286573901", "2793806415", "7046913258",
)  # fmt: skip


def verhoeff(digits: str) -> bool:
    """Verhoeff (1969), over the dihedral group of order 10: Aadhaar."""
    check = 0
    for place, digit in enumerate(reversed(digits)):
        check = int(_DIHEDRAL[check][int(_PERMUTED[place % 8][int(digit)])])
    return check == 0
