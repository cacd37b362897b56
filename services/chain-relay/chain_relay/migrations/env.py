"""Alembic's entry point to the relay's tables."""

from chain_relay.store.tables import Base
from servicekit.database.migrations_env import run_migrations

run_migrations(Base.metadata)
