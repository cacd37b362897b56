"""The shared part of every service's ``migrations/env.py``, which has three lines:

    from servicekit.database.migrations_env import run_migrations
    from datanet.store import Base
    run_migrations(Base.metadata)

This command writes the next migration from the difference between the declared tables and the existing revisions:

    python -m servicekit.database.migrations_env datanet "contributions and snapshots"

Review the migration before you commit it.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

from alembic import context
from alembic.autogenerate import api
from alembic.autogenerate.api import AutogenContext
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData

from servicekit.database.columns import UtcDateTime
from servicekit.database.engine import engine
from servicekit.database.migrate import migrations_folder, run_alembic

_METADATA = "openledger_metadata"

_REVISION = '''"""{message}"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = {down_revision!r}
branch_labels = None
depends_on = None


def upgrade() -> None:
    {upgrade}


def downgrade() -> None:
    {downgrade}
'''


def run_migrations(metadata: MetaData) -> None:
    """Runs revisions over the connection that `servicekit.database.migrate` opened, inside its transaction."""
    config = context.config
    config.attributes[_METADATA] = metadata
    connection = config.attributes["connection"]
    # SQLite supports few alterations of a table: batch mode copies the table instead.
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    context.run_migrations()


def write_revision(package: str, message: str) -> Path | None:
    """Writes the next revision of a package's migrations and returns its path; None when nothing changed.

    It has an upgrade and a downgrade, so that an operator can migrate back before starting an older program again.
    """
    folder = migrations_folder(package)
    (folder / "versions").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        scratch_engine = engine(f"sqlite:///{scratch}/empty.db")
        with scratch_engine.connect() as connection, connection.begin():
            config = run_alembic(connection, package)
            migration = MigrationContext.configure(connection, opts={"compare_type": True})
            script = api.produce_migrations(migration, config.attributes[_METADATA])
        scratch_engine.dispose()
    if script.upgrade_ops is None or script.downgrade_ops is None or script.upgrade_ops.is_empty():
        return None
    upgrade, downgrade = (
        api.render_python_code(way, render_as_batch=True, render_item=_render)
        for way in (script.upgrade_ops, script.downgrade_ops)
    )
    head = ScriptDirectory.from_config(config).get_current_head()
    revision = f"{1 if head is None else int(head) + 1:04d}"
    slug = re.sub(r"[^a-z0-9]+", "_", message.lower()).strip("_")
    path = folder / "versions" / f"{revision}_{slug}.py"
    path.write_text(
        _REVISION.format(
            message=message, revision=revision, down_revision=head, upgrade=upgrade, downgrade=downgrade
        )
    )
    return path


def _render(kind: str, item: Any, autogen_context: AutogenContext) -> str | Literal[False]:
    """Keeps first-party classes out of revisions: a revision must run unchanged in years."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcDateTime) else False


if __name__ == "__main__":
    written = write_revision(sys.argv[1], sys.argv[2])
    print("nothing changed" if written is None else written)
