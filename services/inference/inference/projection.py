"""Keeps the catalogue in memory equal to the projection in the database."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from inference import store
from inference.catalogue import Catalogue, Served, Version
from servicekit.database import reading
from servicekit.errors import Aborted, Unavailable

log = logging.getLogger(__name__)

_POLL_S = 0.25
"""How late a promotion or a block may be noticed after its event was committed. A query of a small table."""


class Projection:
    """`catalogue` is what is served now; `promoted` is told of versions that were not served before.

    Raises, when built, what the database raises: a service that cannot read what it served does not start.
    """

    def __init__(
        self, database: Engine, base_name: str, base_digest: str, promoted: Callable[[Served], None]
    ) -> None:
        self._database = database
        self._base = base_name, base_digest
        self._promoted = promoted
        self._versions: list[Version] = []
        self.catalogue = Catalogue(*self._base)
        self.refresh()

    def refresh(self) -> None:
        """Reads the database; replaces the catalogue when something changed."""
        with reading(self._database) as session:
            versions = store.versions(session)
        if versions == self._versions:
            return
        former = {served.name for served in self.catalogue.served()}
        self._versions, self.catalogue = versions, Catalogue(*self._base, versions)
        for served in self.catalogue.served():
            if served.name not in former:
                self._promoted(served)

    def run(self, stop: threading.Event) -> None:
        """Refreshes until `stop` is set. While the database does not answer, what was served goes on."""
        while not stop.wait(_POLL_S):
            try:
                self.refresh()
            except (SQLAlchemyError, Aborted, Unavailable):
                log.exception("the projection cannot be read; the catalogue stays as it is")
