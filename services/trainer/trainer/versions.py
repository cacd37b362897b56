"""Model versions: read and listed."""

from __future__ import annotations

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from identity.names import ModelName, ModelVersionName
from servicekit.database import reading
from servicekit.errors import FailedPrecondition, NotFound
from servicekit.lists import Page, Query
from trainer.entities import Version
from trainer.store import versions


class Versions:
    """Model versions over one database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def get(self, name: ModelVersionName) -> Version:
        """Raises NotFound."""
        with reading(self._engine) as session:
            return found_version(session, name)

    def list(self, model: ModelName | None, query: Query) -> Page[Version]:
        """Returns a page of a model's versions, newest first, or of all models'.

        Raises NotFound for a model without a training run, InvalidArgument for the query.
        """
        with reading(self._engine) as session:
            if model is not None and not versions.exists_model(session, model.model):
                raise NotFound("model", str(model))
            return versions.page(session, model.model if model else "", query)


def found_version(session: Session, name: ModelVersionName) -> Version:
    """Returns a version. Raises NotFound."""
    version = versions.get(session, name)
    if version is None:
        raise NotFound("model version", str(name))
    return version


def check_report(version: Version) -> None:
    """Raises FailedPrecondition for a version without an evaluation report."""
    if not version.report_digest:
        raise FailedPrecondition(
            "NO_EVALUATION_REPORT",
            f"{version.name} has no evaluation report; evaluate it first",
            subject=str(version.name),
        )
