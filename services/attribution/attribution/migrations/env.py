"""Runs this service's revisions."""

from __future__ import annotations

from attribution.store import Base
from servicekit.database.migrations_env import run_migrations

run_migrations(Base.metadata)
