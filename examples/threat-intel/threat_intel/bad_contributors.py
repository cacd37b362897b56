"""Two bad contributors: one copies what others sent, one sends records without checking them."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path

from threat_intel.attack import Procedure
from threat_intel.vendors import OTHERS, VENDORS, drawn

_SYNONYMS = {
    "uses": "utilizes",
    "used": "utilized",
    "use": "utilize",
    "can": "may",
    "collect": "gather",
    "collects": "gathers",
    "collected": "gathered",
    "download": "fetch",
    "downloads": "fetches",
    "downloaded": "fetched",
    "files": "documents",
    "file": "document",
    "execute": "run",
    "executed": "ran",
    "information": "data",
    "victim": "target",
    "machine": "host",
    "system": "host",
    "systems": "hosts",
    "malicious": "harmful",
    "obtain": "get",
    "gain": "get",
    "attempted": "tried",
    "including": "such as",
    "via": "through",
    "with": "using",
    "communications": "communication",
    "commands": "instructions",
    "network": "net",
    "compromised": "hacked",
}
"""What a copier changes a word to."""

_ADDED = ("reportedly", "also", "apparently", "allegedly", "notably")
_WORDS_PER_EDIT = 20
"""One edit, and one more for each of these many words: light enough to stay the same text."""

_GIBBERISH = (
    "asdf qwer zxcv hjkl dfgh tzui bnmv wsxd rfvt",
    "click here to win " * 30,
    "#### 404 //// 0x00 ???? !!!!",
)


def copier_records(n: int, seed: int = 0, per_vendor: int | None = None) -> list[bytes]:
    """`n` lightly edited copies of what the vendors send, an equal part of each.

    They copy from the beginning of `drawn(vendor, ...)`, so what is copied was sent if each vendor sends at least
    n/8, rounded up; `per_vendor` says how many each sends. Raises ValueError when that is too few.
    """
    each = ceil(n / len(VENDORS))
    if per_vendor is not None and each > per_vendor:
        raise ValueError(f"{n} copies need {each} records of each vendor; each sends {per_vendor}")
    originals = [procedure for vendor in VENDORS for procedure in drawn(vendor.id, each, seed)]
    generator = random.Random(f"{seed} copier")
    generator.shuffle(originals)
    return [edited(procedure, generator).encode() for procedure in originals[:n]]


def edited(procedure: Procedure, generator: random.Random) -> Procedure:
    """The same text with a word or two changed or added, other punctuation, and another source."""
    words = procedure.text.split()
    for _ in range(1 + len(words) // _WORDS_PER_EDIT):
        known = [place for place, word in enumerate(words) if word in _SYNONYMS]
        if known and len(words) > 12 and generator.random() < 0.7:
            place = generator.choice(known)
            words[place] = _SYNONYMS[words[place]]
        else:
            words.insert(generator.choice((1, len(words))), generator.choice(_ADDED))
    text = " ".join(words).rstrip(".")
    text = text.replace(",", "") if generator.random() < 0.3 else text
    return replace(procedure, text=text + generator.choice(("", ".", "!")), source="Copier's threat digest")


def careless_records(n: int, seed: int = 0, gate_items: Path | None = None) -> list[bytes]:
    """`n` records of which one in five is good; the others make one mistake each, all mistakes in turn.

    `gate_items` is a file of evaluation items (JSON lines {suite, item, text}) that some records quote; without it
    none does.
    """
    generator = random.Random(f"{seed} careless")
    good = drawn(OTHERS, n, seed)
    mistakes = (
        [*_MISTAKES, _quoting(_long_items(gate_items))] if gate_items and gate_items.exists() else _MISTAKES
    )
    made = []
    for number, procedure in enumerate(good):
        if number % 5 == 4:
            made.append(procedure.encode())
        else:
            mistake = mistakes[(number - number // 5) % len(mistakes)]
            made.append(mistake(procedure, generator))
    return made


def _email(procedure: Procedure, generator: random.Random) -> bytes:
    name = generator.choice(("jane.doe", "m.mueller", "analyst", "s.rossi"))
    return replace(procedure, text=f"{procedure.text} Contact {name}@example.com for samples.").encode()


def _phone(procedure: Procedure, generator: random.Random) -> bytes:
    number = f"+1 415 555 {generator.randrange(2000, 9999)}"
    return replace(procedure, text=f"{procedure.text} The analyst can be called at {number}.").encode()


def _low_quality(procedure: Procedure, generator: random.Random) -> bytes:
    return replace(procedure, text=generator.choice(_GIBBERISH)).encode()


def _too_short(procedure: Procedure, generator: random.Random) -> bytes:
    return replace(procedure, text=" ".join(procedure.text.split()[:2])).encode()


def _wrong_label(procedure: Procedure, generator: random.Random) -> bytes:
    return replace(procedure, tactic=generator.choice(("hacking", "Discovery"))).encode()


def _unknown_field(procedure: Procedure, generator: random.Random) -> bytes:
    value = json.loads(procedure.encode())
    return json.dumps({**value, "severity": generator.choice(("high", "low"))}).encode()


def _wrong_type(procedure: Procedure, generator: random.Random) -> bytes:
    return json.dumps({"text": procedure.text.split(), "tactic": procedure.tactic}).encode()


def _not_utf8(procedure: Procedure, generator: random.Random) -> bytes:
    return procedure.encode()[:-1] + b', "\xff": "\xfe"}'


def _oversized(procedure: Procedure, generator: random.Random) -> bytes:
    return replace(procedure, text=procedure.text * (1 + (1 << 20) // len(procedure.text))).encode()


_Mistake = Callable[[Procedure, random.Random], bytes]
_MISTAKES: Sequence[_Mistake] = (
    _email,
    _low_quality,
    _wrong_label,
    _phone,
    _unknown_field,
    _not_utf8,
    _too_short,
    _wrong_type,
    _oversized,
)


def _quoting(items: Sequence[str]) -> _Mistake:
    def quote(procedure: Procedure, generator: random.Random) -> bytes:
        return replace(procedure, text=generator.choice(items)).encode()

    return quote


def _long_items(gate_items: Path) -> list[str]:
    """Items of at least 13 words that fit into a record's text."""
    texts = (str(json.loads(line)["text"]) for line in gate_items.read_text("utf-8").splitlines() if line)
    return [text for text in texts if len(re.findall(r"\w+", text)) >= 13 and len(text) <= 2000]
