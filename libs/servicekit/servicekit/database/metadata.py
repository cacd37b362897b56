"""Metadata for the tables of a service. Each service has its own, with the tables outbox, inbox and identity."""

from __future__ import annotations

from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase

from servicekit.database.tables import add_identity, add_inbox, add_outbox

# Constraints without names cannot be altered by a later migration.
_NAMING = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


def new_metadata() -> MetaData:
    """Returns metadata that names constraints and holds the tables `outbox`, `inbox` and `database_identity`.

    Use it in a form that type checkers understand::

        class Base(DeclarativeBase):
            metadata = new_metadata()
    """
    metadata = MetaData(naming_convention=_NAMING)
    add_outbox(metadata)
    add_inbox(metadata)
    add_identity(metadata)
    return metadata


def new_base() -> type[DeclarativeBase]:
    """Returns a new declarative base with `new_metadata()`, for scripts and tests.

    Services write the class statement above instead: type checkers do not understand a base class that a call returns.
    """
    return type("Base", (DeclarativeBase,), {"metadata": new_metadata()})
