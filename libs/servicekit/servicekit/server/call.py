"""A running request, as every step of the pipeline sees it, for all protocols."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar

import grpc

from servicekit.auth import current_principal
from servicekit.errors import Cancelled, DomainError
from servicekit.server.access import Rule

Header = tuple[str, str | bytes]
"""A header or a metadata entry; the name is in lower case."""


class Call(ABC):
    """A request from its first step to its end. Each protocol's adapter implements it.

    Attributes:
        method: ``/package.Service/Method`` of an RPC, ``POST /path/{parameter}`` of an HTTP route. Never text from a client.
        rule: who may call it.
        streaming: whether the request or the response is a stream. Streams have no default deadline.
        code: the outcome; correct once the errors step has ended.
        ended: set when the call is over, for any reason.
    """

    def __init__(self, method: str, rule: Rule, *, streaming: bool) -> None:
        self.method = method
        self.rule = rule
        self.streaming = streaming
        self.code = grpc.StatusCode.OK
        self.ended = threading.Event()
        self._on_end: list[Callable[[], None]] = []

    @property
    def principal_name(self) -> str:
        """The name by which the call's use of the process is counted; "" for every caller of a public method."""
        return "" if self.rule.permission is None else current_principal().name

    @abstractmethod
    def headers(self) -> Iterable[Header]:
        """Returns the headers or the metadata of the request."""

    @abstractmethod
    def remaining_s(self) -> float | None:
        """Returns the seconds until the deadline that the client or the route set; None without one."""

    @abstractmethod
    def span_name(self) -> str:
        """Returns the name of the call's span, by OpenTelemetry's semantic conventions."""

    @abstractmethod
    def span_attributes(self) -> Mapping[str, str]:
        """Returns the attributes of the span that are known at its start."""

    @abstractmethod
    def outcome_attributes(self) -> Mapping[str, str | int]:
        """Returns the attributes of the span about the response, once there is one."""

    @abstractmethod
    def handler_code(self) -> grpc.StatusCode:
        """Returns the status of a response that the handler made without raising."""

    @abstractmethod
    async def refuse(self, error: DomainError) -> None:
        """Answers with an error in the protocol's own form."""

    def on_end(self, callback: Callable[[], None]) -> None:
        """Runs `callback` when the call is over, also when the client disconnected before the first byte of a stream."""
        self._on_end.append(callback)

    def end(self) -> None:
        """Marks the call as over. The adapter calls this last, once."""
        self.ended.set()
        for callback in reversed(self._on_end):
            callback()


_current: ContextVar[Call | None] = ContextVar("openledger_call", default=None)


def set_current_call(call: Call) -> None:
    """Sets the current call. The pipeline calls it in the call's task."""
    _current.set(call)


def on_call_end(callback: Callable[[], None]) -> None:
    """Runs `callback` when the current call is over, for any reason.

    Raises:
        RuntimeError: there is no current call.
    """
    call = _current.get()
    if call is None:
        raise RuntimeError("there is no current call")
    call.on_end(callback)


def check_cancelled() -> None:
    """Ends long work in a thread that a handler started, because asyncio cannot cancel a thread.

    Raises:
        Cancelled: the current call is over. Never raised outside of a call.
    """
    call = _current.get()
    if call is not None and call.ended.is_set():
        raise Cancelled()
