"""Keeps the catalogue in memory equal to the read model in the database."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Engine, event
from sqlalchemy.orm import Session

from inference import store
from inference.catalogue import Catalogue, Served, Version
from servicekit.database import reading
from servicekit.server.loops import repeat

POLL_S = 1.0
"""How late a version that another process stored in this database takes effect at most, about; commits of this process
take effect at once. The poll queries one small table."""


class ReadModel:
    """`catalogue` is what is served now. `promoted` is called with each version that was not served before.

    Raises, when built, what the database raises: a service that cannot read its versions does not start.
    """

    def __init__(
        self,
        database: Engine,
        base_name: str,
        base_digest: str,
        promoted: Callable[[Served], None],
        *,
        poll_s: float = POLL_S,
    ) -> None:
        self._database = database
        self._base = base_name, base_digest
        self._promoted = promoted
        self._versions: list[Version] = []
        self.loop = repeat(self.refresh, poll_s, name="read model")
        """Keeps the catalogue current; to run as a thread."""
        self.catalogue = Catalogue(*self._base)
        self.refresh()

    def refresh_after(self, session: Session) -> None:
        """Wakes the loop once the session's transaction is committed; never if it is rolled back."""
        event.listen(session, "after_commit", lambda _: self.loop.notify())

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
