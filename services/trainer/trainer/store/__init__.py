"""The database: tables, and functions that read and write them in their caller's transaction."""

from trainer.store.tables import Base

__all__ = ["Base"]
