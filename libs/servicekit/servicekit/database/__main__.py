"""Takes a service's database back to an older revision, before an older program starts on it:

    python -m servicekit.database back trainer postgresql://... 0001

The newer program's code is needed: it knows how to undo what it did. Every revision after the named one is undone (``base``
undoes all), and with them the data that only they hold: back the database up first. Forward needs no command, a service
migrates when it starts.
"""

from __future__ import annotations

import sys

from servicekit.database.engine import engine
from servicekit.database.migrate import migrate_back
from servicekit.errors import StartupError


def main(arguments: list[str]) -> int:
    """Returns the exit code; what is wrong is one line."""
    if len(arguments) != 4 or arguments[0] != "back":
        print("usage: python -m servicekit.database back PACKAGE DATABASE_URL REVISION", file=sys.stderr)
        return 2
    package, url, revision = arguments[1:]
    try:
        migrate_back(engine(url), package, revision)
    except (StartupError, ModuleNotFoundError) as error:
        print(f"servicekit.database: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
