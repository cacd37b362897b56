"""Amounts of OPEN: the APIs carry base units (10^-18 OPEN) as decimal text, which keeps every digit."""

from __future__ import annotations


def open_tokens(base_units: str) -> str:
    """Returns an amount of base units as OPEN, with every digit: `1.2345 OPEN`."""
    whole, rest = divmod(int(base_units or "0"), 10**18)
    return f"{whole}.{rest:018d}".rstrip("0").rstrip(".") + " OPEN"
