"""How long the rules need for a hostile record of 64 KiB, and for one of half that size: the figures of docs/data.md.

    python bench/judging.py

The policy is the default one: with the evaluation items of the platform, as `openledger up` exports them. Hostile text stands in
each field in turn. Prints the worst processor time of a thread in milliseconds for each kind of text, slowest first, the best of
five; then the same for a policy that asks for every entity, for information; and how many planted identifiers and secrets the
default policy finds. Exits with 1 when a bar is missed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from datanet.contamination import EvaluationItems, read_items
from datanet.definition import DEFAULT_ENTITIES, SUPPORTED_ENTITIES, Field, QualityPolicy, RecordSchema
from datanet.personal_data import PersonalData
from datanet.quality import Rules
from identity.digest import canonical_json
from openledger_testing.hostile_texts import UNITS, cpu_s, text_of
from openledger_testing.planted_personal_data import CLEAN, PLANTED

SIZE = 65_536
MAX_MS = 50.0
MAX_RATIO = 2.5
"""Twice, and the rest for the noise of a busy machine; quadratic time would be four times."""
MIN_FOUND, MAX_WRONG = 32, 1
PROSE = "The group used a tool to download more tools for later use."
FIELDS = ("text", "note", "source")
ITEMS_OF_A_SUITE = 1000
"""As many as `openledger up` exports."""
RUNS = 5


def times_ms(rules: Rules, field: str, unit: str) -> tuple[float, float]:
    """Returns the time of a record with 64 KiB of the text in a field, and of one with half of that."""
    whole, half = (
        canonical_json({"text": PROSE, "note": "", "source": "", field: text_of(unit, size)})
        for size in (SIZE, SIZE // 2)
    )
    return 1000 * cpu_s(lambda: rules.judge(whole), RUNS), 1000 * cpu_s(lambda: rules.judge(half), RUNS)


def gate_items() -> EvaluationItems:
    """Returns the platform's evaluation items."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.jsonl"
        command = [sys.executable, "-m", "finetune.export_items", "export", "--out", str(path)]
        subprocess.run([*command, "--limit", str(ITEMS_OF_A_SUITE)], check=True)
        return EvaluationItems(read_items(path.read_bytes()))


def main() -> int:
    """Prints the table; returns the exit code."""
    schema = RecordSchema(
        (Field(name="text", required=True), Field(name="note"), Field(name="source")), "{text}", " {text}"
    )
    items = gate_items()
    print(f"{len(items)} evaluation items are searched for")
    met = True
    for name, entities in (("default policy", DEFAULT_ENTITIES), ("every entity", SUPPORTED_ENTITIES)):
        rules = Rules(schema, QualityPolicy(personal_data_entities=entities), items)
        rows = sorted(
            (
                (*max((*times_ms(rules, field, unit), field) for field in FIELDS), kind)
                for kind, unit in UNITS.items()
            ),
            reverse=True,
        )
        print(name)
        for whole_ms, half_ms, field, kind in rows:
            print(f"{whole_ms:7.1f} ms  {whole_ms / half_ms:5.2f} times the half  {kind} in {field}")
        met &= entities != DEFAULT_ENTITIES or all(
            whole_ms <= MAX_MS and whole_ms <= MAX_RATIO * half_ms for whole_ms, half_ms, *_ in rows
        )
    find = PersonalData(DEFAULT_ENTITIES).find
    found = sum(find(text) is not None for _, text in PLANTED)
    wrong = sum(find(text) is not None for text in CLEAN)
    print(f"planted: {found} of {len(PLANTED)} found; clean: {wrong} of {len(CLEAN)} refused")
    return 0 if met and found >= MIN_FOUND and wrong <= MAX_WRONG else 1


if __name__ == "__main__":
    raise SystemExit(main())
