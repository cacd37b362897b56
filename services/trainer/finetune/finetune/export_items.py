"""Texts of everything the retained suites may ask, for a Datanet's contamination rule.

    python -m finetune.export_items export --out FILE

writes JSON lines {"suite", "id", "text"}: prompt and right answer of every item that a sample could hold, so
that the file does not depend on a sample's size or seed. The domain suite is left out: its items are the
Datanet's own.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from finetune.evaluation.suites import RETAINED
from servicekit import private
from servicekit.files import write_whole


def item_texts(limit: int | None = None, seed: int = 0) -> Iterator[dict[str, str]]:
    """All items of all retained suites, or of each the `limit` that a sample of that size and seed has.

    Raises SuiteUnavailable.
    """
    for suite in RETAINED.values():
        items = suite.source() if limit is None else suite.sample(limit, seed).items
        for item in items:
            yield {"suite": suite.name, "id": item.id, "text": item.text}


def export(path: Path, limit: int | None = None, seed: int = 0) -> int:
    """Writes the file, whole or not at all; returns how many items it has."""
    lines = [json.dumps(text, ensure_ascii=False) for text in item_texts(limit, seed)]
    write_whole(path, "\n".join(lines) + "\n")
    return len(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m finetune.export_items", description=__doc__)
    command = parser.add_subparsers(dest="command", required=True).add_parser(
        "export", help="write item texts"
    )
    command.add_argument("--out", type=Path, required=True, help="file to write")
    command.add_argument("--limit", type=int, help="only the items that samples of this size hold")
    command.add_argument("--seed", type=int, default=0, help="seed of these samples")
    arguments = parser.parse_args()
    private.protect_process()
    count = export(arguments.out, arguments.limit, arguments.seed)
    print(f"{count} items written to {arguments.out}")


if __name__ == "__main__":
    main()
