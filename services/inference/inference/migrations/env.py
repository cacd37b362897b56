"""Alembic's entry: this service's tables."""

from inference.store import Base
from servicekit.database.migrations_env import run_migrations

run_migrations(Base.metadata)
