"""One RPC that runs: what the interceptors know of it, and whether its caller still waits."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import grpc

from servicekit.errors import Cancelled
from servicekit.server.access import Rule


@dataclass
class Call:
    """An RPC from its first interceptor to its end.

    Attributes:
        method: ``/package.Service/Method``.
        unary: neither side streams.
        rule: who may call it.
        context: gRPC's own.
        code: its outcome, right once the errors interceptor has ended.
        ended: set when the call is over for whatever reason.
    """

    method: str
    unary: bool
    rule: Rule
    context: grpc.aio.ServicerContext[Any, Any]
    code: grpc.StatusCode = grpc.StatusCode.OK
    ended: threading.Event = field(default_factory=threading.Event)


_current: ContextVar[Call | None] = ContextVar("openledger_call", default=None)


def set_current_call(call: Call) -> None:
    """Called by the pipeline, in the RPC's task."""
    _current.set(call)


def check_cancelled() -> None:
    """For long work in threads that a handler started: asyncio can cancel a coroutine, not a thread.

    Raises:
        Cancelled: the call for which this work is done is over; outside of a call, never.
    """
    call = _current.get()
    if call is not None and call.ended.is_set():
        raise Cancelled()
