"""The event log of a platform, for operators: one line says what is wrong with its address or its file."""

from __future__ import annotations

from servicekit.errors import StartupError
from servicekit.eventlog import (
    EventLog,
    EventLogError,
    EventLogUnavailable,
    check_event_log_url,
    open_event_log,
)


def check_url(url: str) -> None:
    """Raises StartupError when no event log can be at the URL; opens nothing."""
    try:
        check_event_log_url(url)
    except ValueError as error:
        raise StartupError(str(error)) from None


def open_log(url: str) -> EventLog:
    """Opens the event log.

    Raises:
        StartupError: the URL is wrong, or the file is damaged or no event log.
        EventLogUnavailable: it does not answer now.
    """
    check_url(url)
    try:
        return open_event_log(url)
    except EventLogUnavailable:
        raise
    except EventLogError as error:
        raise StartupError(f"event log {url}: {error}") from None
