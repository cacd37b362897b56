"""Checks the import contracts (tools/import_contracts.ini), with the services that services/ holds filled in."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from first_party import ROOT, packages
from importlinter import cli

_TEMPLATE = ROOT / "tools" / "import_contracts.ini"


def configuration() -> str:
    """Returns the contracts, complete."""
    services = packages("services")
    text = _TEMPLATE.read_text()
    text = text.replace("{packages}", "\n    ".join(packages()))
    text = text.replace("{services}", "\n    ".join(services))
    return text.replace("{any service}", " | ".join(services))


def main() -> int:
    """Returns the exit status of import-linter."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "import_contracts.ini"
        file.write_text(configuration())
        return int(cli.lint_imports(str(file), cache_dir=str(ROOT / ".import_linter_cache"), no_logo=True))


if __name__ == "__main__":
    sys.exit(main())
