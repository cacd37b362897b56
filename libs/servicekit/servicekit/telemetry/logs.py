"""Logs: one JSON object per line for machines, or a short line for people, with the id of the current trace."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, TextIO

from opentelemetry import trace

# Attributes of every LogRecord. All others are data from ``extra=``.
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def configure_logs(service: str, level: str, form: str) -> None:
    """Sends all logs of the process to standard error. Standard output is for data that other programs read."""
    handler = _StandardError()
    handler.setFormatter(JsonFormatter(service) if form == "json" else TextFormatter(service))
    root = logging.getLogger()
    for old in list(root.handlers):
        if isinstance(old.formatter, JsonFormatter | TextFormatter):
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    # These libraries log each connection and each request. At DEBUG some log bodies, and URLs that contain keys of
    # providers, so they stay at WARNING.
    for noisy in ("kafka", "httpx", "httpcore", "uvicorn.access", "alembic", "urllib3", "web3"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level)))


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to the current ``sys.stderr``, which may be replaced, and its former stream closed, after the set-up."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override] # a plain attribute there
        return sys.stderr


class JsonFormatter(logging.Formatter):
    """Formats time, level, service, logger, message, trace_id, span_id, and the fields of ``extra``."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Returns one line. Values without a JSON form are converted to text."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
            **dict(_trace()),
            **_extra(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """Formats ``12:00:00 datanet INFO message key=value``."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Returns a line, followed by the traceback if there is one."""
        time = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        extra = "".join(f" {key}={value}" for key, value in _extra(record).items())
        line = f"{time} {self._service} {record.levelname} {record.getMessage()}{extra}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _trace() -> Iterator[tuple[str, str]]:
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        yield "trace_id", trace.format_trace_id(span.trace_id)
        yield "span_id", trace.format_span_id(span.span_id)


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {
        key: value for key, value in vars(record).items() if key not in _STANDARD and not key.startswith("_")
    }
