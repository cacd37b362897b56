"""Where a service's tables are declared: each service has its own, and each begins with outbox, inbox and identity."""

from __future__ import annotations

from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase

from servicekit.tables import add_identity, add_inbox, add_outbox

# Constraints without names cannot be altered by a later migration.
_NAMING = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


def new_metadata() -> MetaData:
    """Metadata that names constraints and holds the tables `outbox`, `inbox` and `database_identity`.

    The form that type checkers follow::

        class Base(DeclarativeBase):
            metadata = new_metadata()
    """
    metadata = MetaData(naming_convention=_NAMING)
    add_outbox(metadata)
    add_inbox(metadata)
    add_identity(metadata)
    return metadata


def new_base() -> type[DeclarativeBase]:
    """A declarative base of its own over `new_metadata()`, for scripts and tests.

    A type checker cannot follow a base class made by a call: services write the class statement above.
    """
    return type("Base", (DeclarativeBase,), {"metadata": new_metadata()})
