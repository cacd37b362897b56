"""Whether two texts or two names are the same is decided in one module; elsewhere nothing folds Unicode on its own."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FOLDING = re.compile(r"\bunicodedata\.|\.casefold\(")
ALLOWED = {
    "libs/identity/identity/folding.py",
    # Canonical JSON is in normalisation form C: digests depend on it, and on nothing more.
    "libs/identity/identity/digest.py",
    # Items are compared as canonical JSON is.
    "services/trainer/finetune/finetune/evaluation/item.py",
    # Bounds the work of normalisation.
    "services/datanet/datanet/contribution.py",
    # Finds identifiers in a text; keeps positions, so that it can say where.
    "services/datanet/datanet/personal_data/folding.py",
    # Shows control characters to people.
    "cli/openledger_cli/console.py",
}


def test_no_other_module_folds_text() -> None:
    found = {
        str(path.relative_to(ROOT))
        for folder in ("libs", "services", "cli", "ops", "examples")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if "tests" not in path.relative_to(ROOT).parts and _FOLDING.search(path.read_text("utf-8"))
    }
    assert found <= ALLOWED, "use identity.folding: fold, same_person"


_PEOPLE = "requester|approver|proposer|requested_by|approved_by"
_EXACT = re.compile(rf"\b({_PEOPLE}) *(==|!=) *\w*principal|principal\.name *(==|!=) *\w+\.({_PEOPLE})\b")


def test_whether_two_principals_are_two_people_is_asked_after_folding() -> None:
    """Where the one who asked is compared with the one who decides by code points, one person passes for two."""
    found = [
        f"{path.relative_to(ROOT)}: {hit[0]}"
        for folder in ("libs", "services", "ops")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if "tests" not in path.relative_to(ROOT).parts
        for hit in _EXACT.finditer(path.read_text("utf-8"))
    ]
    assert found == [], "use identity.folding.same_person"
