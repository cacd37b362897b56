"""The organisations whose reports ATT&CK cites, grouped to the eight with the most texts."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, zip_longest

from threat_intel.attack import TACTICS, Procedure, procedures


@dataclass(frozen=True)
class Vendor:
    """One contributor of the story."""

    id: str
    title: str
    pattern: str
    """Of citations that are this vendor's, in lower case; brands that were bought count to the buyer."""


VENDORS = (
    Vendor("mandiant", "Mandiant and FireEye", r"mandiant|fireeye"),
    Vendor("eset", "ESET", r"eset\b|welivesecurity"),
    Vendor("unit42", "Palo Alto Networks Unit 42", r"unit ?42|palo ?alto"),
    Vendor("cisa", "CISA and partner agencies", r"cisa\b|us-cert|ncsc\b|fbi\b|joint cybersecurity"),
    Vendor("kaspersky", "Kaspersky", r"kaspersky|securelist"),
    Vendor("trendmicro", "Trend Micro", r"trend ?micro"),
    Vendor("talos", "Cisco Talos", r"talos|cisco\b"),
    Vendor("microsoft", "Microsoft", r"microsoft|mstic\b|msrc\b"),
)

OTHERS = ""
"""Key of the texts of all other vendors in `procedures_by_vendor`."""


@lru_cache(maxsize=1)
def procedures_by_vendor() -> dict[str, tuple[Procedure, ...]]:
    """{vendor id: its texts}; each text belongs to the first vendor whose pattern its source matches."""
    patterns = [(vendor.id, re.compile(rf"\b(?:{vendor.pattern})")) for vendor in VENDORS]
    found: defaultdict[str, list[Procedure]] = defaultdict(list)
    for procedure in procedures():
        source = procedure.source.lower()
        found[next((name for name, pattern in patterns if pattern.search(source)), OTHERS)].append(procedure)
    return {name: tuple(each) for name, each in found.items()}


def drawn(vendor: str, n: int, seed: int) -> list[Procedure]:
    """The first `n` of a vendor's texts in an order drawn by `seed`; a smaller `n` gives a beginning of a larger one.

    Tactics take turns, so that rare ones are not lost among the three that make half of all texts. Raises KeyError
    for an unknown vendor, ValueError when it has fewer texts.
    """
    texts = procedures_by_vendor()[vendor]
    if n > len(texts):
        raise ValueError(f"{vendor or 'others'} has {len(texts)} texts; {n} were asked for")
    generator = random.Random(f"{seed} {vendor}")
    piles = []
    for tactic in TACTICS:
        pile = [procedure for procedure in texts if procedure.tactic == tactic]
        generator.shuffle(pile)
        piles.append(pile)
    turns = chain.from_iterable(zip_longest(*piles))
    return [procedure for procedure in turns if procedure is not None][:n]
