"""Runs this service's revisions."""

from __future__ import annotations

from attribution.store import Base
from servicekit.migrations_env import run_migrations

run_migrations(Base.metadata)
