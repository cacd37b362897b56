"""Writes confusables.txt beside it: Unicode's table of characters that look alike, as lines of hexadecimal code points.

    cargo fetch   # in a package that depends on unicode-security; brings its src/tables.rs
    python write_confusables.py .../unicode-security-0.1.3/src/tables.rs

`tools/write_folding.py` makes the table of `identity.folding` from it. The crate is where a registry has Unicode's newest
table (UTS 39, confusables.txt), unchanged.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

OUTPUT = Path(__file__).parent / "confusables.txt"
_HEAD = """\
# Characters and what they look like: Unicode {version}, UTS 39, confusables.txt. Written by write_confusables.py.
# Copyright 1991-2026 Unicode, Inc. Used under the Unicode License v3, https://www.unicode.org/license.txt
"""
_VERSION = re.compile(r"UNICODE_VERSION: \(u64, u64, u64\) = \((\d+), (\d+), (\d+)\)")
_TABLE = re.compile(r"CONFUSABLES: &'static \[\(char, &'static \[char\]\)\] = &\[(.*?)\n    \];", re.DOTALL)
_ENTRY = re.compile(r"\('\\u\{([0-9a-f]+)\}',\s*&\[([^\]]*)\]\)")
_CODE_POINT = re.compile(r"\\u\{([0-9a-f]+)\}")


def main() -> None:
    """Reads the crate's tables.rs, whose path is the only argument."""
    source = Path(sys.argv[1]).read_text("utf-8")
    version, table = _VERSION.search(source), _TABLE.search(source)
    if version is None or table is None:
        raise SystemExit(f"{sys.argv[1]} is not src/tables.rs of the crate unicode-security")
    lines = [
        f"{character} {' '.join(_CODE_POINT.findall(prototype))}"
        for character, prototype in _ENTRY.findall(table[1])
    ]
    OUTPUT.write_text(_HEAD.format(version=".".join(version.groups())) + "\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
