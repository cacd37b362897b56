"""Subscriptions: typed handlers by topic and message type, collected per consumer group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from google.protobuf.message import Message
from sqlalchemy.orm import Session

from servicekit.delivery._delivery import BatchHandler, Handler
from servicekit.errors import StartupError
from servicekit.eventlog import topics
from servicekit.eventlog.base import Topic
from servicekit.eventlog.events import Event

M = TypeVar("M", bound=Message)

EventHandler = Callable[[Session, Event[M]], None]
"""Makes one event's change through the session and nowhere else: the transaction may run more than once."""
EventsHandler = Callable[[Session, Sequence[Event[M]]], None]
"""Makes the changes of several events, in order, in one transaction. Otherwise like `EventHandler`."""


class Subscriptions:
    """What a service has subscribed to. A group's subscriptions become one consumer when the service starts."""

    def __init__(self) -> None:
        self.by_group: dict[str, dict[str | Topic, dict[str, Handler | BatchHandler]]] = {}

    def add(
        self, group: str, topic: Topic | str, message: type[Message], handler: Handler | BatchHandler
    ) -> None:
        """Adds a subscription.

        Raises:
            StartupError: the topic is unknown or never holds the message, or the group already has a handler for it.
        """
        known = topic if isinstance(topic, Topic) else topics.BY_NAME.get(topic)
        name = message.DESCRIPTOR.full_name
        if known is None:
            raise StartupError(f"consumer {group}: topic {topic!r} is not in proto/topics")
        if known.messages and name not in known.messages:
            raise StartupError(
                f"consumer {group}: topic {known.name} holds {', '.join(known.messages)}, and never {name}"
            )
        by_type = self.by_group.setdefault(group, {}).setdefault(known, {})
        if name in by_type:
            raise StartupError(f"consumer {group}: {name} of {known.name} has two handlers")
        by_type[name] = handler
