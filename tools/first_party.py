"""The packages of this repository, from their pyproject.toml files: what linters check, with no list to keep up.

python tools/first_party.py            # import names, one a line
python tools/first_party.py services   # those below services/
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_NOT_CHECKED = ("proto", "tests", "node_modules", ".venv")
"""Generated code, and what is never shipped."""


def packages(below: str = "") -> list[str]:
    """Returns the import names of all packages, or of those below a folder."""
    found: list[str] = []
    files = (file for depth in ("*", "*/*", "*/*/*") for file in ROOT.glob(f"{depth}/pyproject.toml"))
    for file in sorted(files):
        if file.relative_to(ROOT).parts[0] in _NOT_CHECKED or not file.is_relative_to(ROOT / below):
            continue
        project = tomllib.loads(file.read_text())
        found += project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    return [name.replace("/", ".") for name in found]


def main() -> None:
    """Prints them."""
    print("\n".join(packages(*sys.argv[1:2])))


if __name__ == "__main__":
    main()
