"""Runs this service's revisions."""

from __future__ import annotations

from servicekit.migrations_env import run_migrations
from trainer.store import Base

run_migrations(Base.metadata)
