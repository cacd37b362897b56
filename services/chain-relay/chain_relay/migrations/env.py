"""Alembic's door to the relay's tables."""

from chain_relay.tables import Base
from servicekit.migrations_env import run_migrations

run_migrations(Base.metadata)
