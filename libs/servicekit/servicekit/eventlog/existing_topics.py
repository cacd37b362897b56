"""Creates the topics of the registry at their first use, so that no service depends on another one's start."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from servicekit.eventlog import topics
from servicekit.eventlog.base import EventLog


class ExistingTopics:
    """Remembers which topics exist. Used by one thread."""

    def __init__(self, event_log: EventLog) -> None:
        self._event_log = event_log
        self._known: set[str] = set()

    @contextmanager
    def ensured(self, names: Collection[str]) -> Iterator[None]:
        """Creates those of the topics that are missing; the block then sends to them.

        When the block fails, the next call looks for them again: brokers may have been replaced by others without them.
        """
        try:
            if new := set(names) - self._known:
                self._event_log.ensure_topics(
                    [topics.BY_NAME[name] for name in new if name in topics.BY_NAME]
                )
                self._known |= new
            yield
        except BaseException:
            self._known.clear()
            raise
