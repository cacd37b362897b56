"""Model versions: read and listed."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Engine

from identity.names import ModelName, ModelVersionName
from servicekit.database import reading
from servicekit.errors import NotFound
from trainer import names, paging
from trainer.entities import Version
from trainer.store import versions

_ALL = "models/-"


class Versions:
    """Model versions over one database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def get(self, name: ModelVersionName) -> Version:
        """Raises NotFound."""
        with reading(self._engine) as session:
            version = versions.get(session, name)
        if version is None:
            raise NotFound("model version", str(name))
        return version

    def list(self, parent: str, page_size: int, page_token: str) -> tuple[Sequence[Version], str]:
        """A page of a model's versions, newest first, or of all models', and the next page's token.

        Raises NotFound for a model that nobody trained.
        """
        model = "" if parent == _ALL else names.parse("parent", ModelName, parent).model
        key = paging.key_of(page_token)
        after = names.parse("page_token", ModelVersionName, key) if key else None
        with reading(self._engine) as session:
            if model and not versions.exists_model(session, model):
                raise NotFound("model", parent)
            place = (after.model, after.version) if after else None
            found = versions.page(session, model, place, paging.limit(page_size))
        return paging.page(found, page_size, lambda version: str(version.name))
