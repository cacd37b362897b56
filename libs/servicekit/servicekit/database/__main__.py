"""Migrates a service's database back to an older revision, before an older program starts on it:

    python -m servicekit.database back trainer postgresql://... 0001

Run it with the newer program's code, which knows how to undo its revisions. It undoes every revision after the named one
(``base`` undoes all) and deletes the data that only those revisions hold: back the database up first. Migrating forward
needs no command: a service migrates its database when it starts.
"""

from __future__ import annotations

import sys

from servicekit import private
from servicekit.database.engine import engine
from servicekit.database.migrate import migrate_back
from servicekit.errors import StartupError


def main(arguments: list[str]) -> int:
    """Returns the exit code. Prints one line when something is wrong."""
    if len(arguments) != 4 or arguments[0] != "back":
        print("usage: python -m servicekit.database back PACKAGE DATABASE_URL REVISION", file=sys.stderr)
        return 2
    private.protect_process()
    package, url, revision = arguments[1:]
    try:
        migrate_back(engine(url), package, revision)
    except (StartupError, ModuleNotFoundError) as error:
        print(f"servicekit.database: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
