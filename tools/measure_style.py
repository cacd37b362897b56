"""Measures the language and the shape of the code: `python tools/measure_style.py [--rev REV] [--list PATH ...]`.

Prints, for the working tree or a git revision:

- private idioms (`private_idioms.py`) per 1,000 words of identifiers, comments, docstrings, strings and Markdown;
- private idioms in what a user sees: every string of shipped code, help texts, proto comments and fields,
  columns, metrics and their labels;
- calls with six or more positional arguments per 1,000 lines of code; pairs, `*more`, the columns of a
  table and calls with constants only do not count, as nothing there can be swapped unseen;
- the sizes of files and functions.

Identifiers count at each use, split into words. A line of code has no blank, comment or docstring on it.
Strings that must keep an old name are exempt: those of applied migrations, and lines marked `# old name`.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from style_counts import VISIBLE, Measure
from style_readers import MANY_ARGUMENTS, reader_of

GENERATED = ("proto/python/", "node_modules/", "contracts/build/")
# The list of old words itself.
LISTS = ("tools/private_idioms.py",)
BARS = {"per 1,000 words, code": 1.0, "per 1,000 words, Markdown": 1.0, "positional calls per kLoC": 0.5}


def measure(root: Path, paths: Iterable[str]) -> Measure:
    """Measures the named files below a folder."""
    into = Measure()
    for path in sorted(paths):
        if path.startswith(GENERATED) or path in LISTS:
            continue
        reader = reader_of(path)
        if reader is not None:
            reader(into, path, (root / path).read_text(encoding="utf-8"))
    return into


def measure_tree(root: Path) -> Measure:
    """Measures a working tree: what git tracks and what it does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()
    return measure(root, [path for path in listed if (root / path).is_file()])


def measure_revision(root: Path, revision: str) -> Measure:
    """Measures a git revision."""
    archive = subprocess.run(["git", "archive", revision], cwd=root, capture_output=True, check=True).stdout
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
        files = (p for p in Path(folder).rglob("*") if p.is_file() and not p.is_symlink())
        return measure(Path(folder), [p.relative_to(folder).as_posix() for p in files])


def failures(measured: Measure) -> list[str]:
    """Returns which bars the measure misses; empty when it meets them all."""
    table = measured.table()
    missed = [
        f"{name}: {table[name]}, at most {bar}" for name, bar in BARS.items() if float(table[name]) > bar
    ]
    return missed + [f"a user sees {hit}" for hit in measured.visible()]


def main() -> int:
    """Prints the report, or the hits below some paths. Returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rev",
        help="a git revision instead of the working tree; given twice: before and after",
        action="append",
    )
    parser.add_argument(
        "--list", nargs="+", metavar="PATH", help="the hits and positional calls below these paths"
    )
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    parser.add_argument("--check", action="store_true", help="exit status 1 when a bar is missed")
    given = parser.parse_args()
    root = Path(__file__).resolve().parents[1]
    revisions = given.rev or [None]
    measures = [
        measure_tree(root) if revision is None else measure_revision(root, revision) for revision in revisions
    ]
    if given.list:
        under = tuple(path.removeprefix("./").rstrip("/") for path in given.list)
        _print_list(measures[0], ("",) if under == (".",) else under)
        return 0
    tables = [measured.table() for measured in measures]
    if given.json:
        print(json.dumps(dict(zip((r or "tree" for r in revisions), tables, strict=True)), indent=1))
    else:
        print(f"{'':38}" + "".join(f"{(revision or 'tree')[:18]:>20}" for revision in revisions))
        for name in tables[0]:
            print(f"{name:38}" + "".join(f"{table[name]:>20}" for table in tables))
    missed = failures(measures[-1]) if given.check else []
    print("\n".join(missed), file=sys.stderr) if missed else None
    return 1 if missed else 0


def _print_list(measured: Measure, under: tuple[str, ...]) -> None:
    hits = [hit for hit in measured.hits if hit.path.startswith(under)]
    for hit in hits:
        print(hit, "(a user sees it)" if hit.kind in VISIBLE else "")
    calls = [call for call in measured.positional if call.startswith(under)]
    print("\n".join(calls))
    by_word = ", ".join(f"{word} {n}" for word, n in Counter(hit.word for hit in hits).most_common())
    print(
        f"{len(hits)} idioms ({by_word}); {len(calls)} calls with {MANY_ARGUMENTS} or more positional arguments"
    )


if __name__ == "__main__":
    sys.exit(main())
