"""Runs this service's revisions."""

from __future__ import annotations

from servicekit.database.migrations_env import run_migrations
from trainer.store import Base

run_migrations(Base.metadata)
