"""Channels whose calls have deadlines, are retried where that is safe, and raise typed errors.

Generated stubs work on them unchanged: `DatanetServiceStub(Calls(channel, policy))`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import grpc

from openledger_client.errors import of_call
from openledger_client.retries import Retries, reads_only, takes_request_id, with_request_id


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Deadlines and retries of calls."""

    deadline_s: float = 60.0
    """Deadline of a unary call without a timeout of its own, all its attempts together."""
    stream_deadline_s: float = 600.0
    """Deadline of a stream without a timeout of its own."""
    retries: Retries = field(default_factory=Retries)
    sleep: Callable[[float], None] = time.sleep
    """Waits between attempts of synchronous calls."""
    clock: Callable[[], float] = time.monotonic
    """Measures deadlines and the time since the first failure."""


class Calls:
    """A synchronous channel under a policy."""

    def __init__(
        self, channel: grpc.Channel, policy: Policy, peer: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """`peer` says in errors which service was called where."""
        self._channel = channel
        self._policy = policy
        self._peer = peer

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> _Unary:
        return _Unary(self._channel.unary_unary(method, *args, **kwargs), method, self._policy, self._peer)

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> _Stream:
        return _Stream(self._channel.unary_stream(method, *args, **kwargs), self._policy, self._peer)

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> _Stream:
        return _Stream(self._channel.stream_stream(method, *args, **kwargs), self._policy, self._peer)

    def close(self) -> None:
        """Closes the channel; running calls are cancelled."""
        self._channel.close()


class AsyncCalls:
    """An asyncio channel under a policy."""

    def __init__(
        self, channel: grpc.aio.Channel, policy: Policy, peer: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """`peer` says in errors which service was called where."""
        self._channel = channel
        self._policy = policy
        self._peer = peer

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> _AsyncUnary:
        return _AsyncUnary(
            self._channel.unary_unary(method, *args, **kwargs), method, self._policy, self._peer
        )

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> _AsyncStream:
        return _AsyncStream(self._channel.unary_stream(method, *args, **kwargs), self._policy, self._peer)

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> _AsyncStream:
        return _AsyncStream(self._channel.stream_stream(method, *args, **kwargs), self._policy, self._peer)

    async def close(self) -> None:
        """Closes the channel; running calls are cancelled."""
        await self._channel.close()


class _Attempts:
    """The attempts of one unary call."""

    def __init__(
        self, method: str, request: Any, timeout: float | None, policy: Policy, peer: Mapping[str, str]
    ) -> None:
        self._peer = peer
        self._retries = policy.retries
        self._clock = policy.clock
        self._end = self._clock() + (policy.deadline_s if timeout is None else timeout)
        self._give_up: float | None = None
        self._attempt = 0
        self._safe = reads_only(method)
        if not self._safe and takes_request_id(method):
            self._safe, request = True, with_request_id(request)
        self.request = request

    def timeout_s(self) -> float:
        """Begins an attempt and returns the seconds that it may take."""
        self._attempt += 1
        return max(0.0, self._end - self._clock())

    def wait_s(self, failed: grpc.RpcError) -> float:
        """Returns the seconds to wait before the next attempt. Raises the typed error when there is none."""
        error = of_call(failed, self._peer)
        now = self._clock()
        if self._give_up is None:
            self._give_up = now + self._retries.give_up_after_s
        left_s = min(self._end, self._give_up) - now
        wait_s = self._retries.wait_s(error, self._attempt, left_s) if self._safe else None
        if wait_s is None:
            raise error from failed
        return wait_s


class _Unary:
    """A unary method of a stub."""

    def __init__(self, inner: Any, method: str, policy: Policy, peer: Mapping[str, str]) -> None:
        self._inner = inner
        self._method = method
        self._policy = policy
        self._peer = peer

    def __call__(self, request: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        return self._repeat(self._inner, request, timeout, kwargs)

    def with_call(self, request: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        return self._repeat(self._inner.with_call, request, timeout, kwargs)

    def future(self, request: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """Returns gRPC's own future: it raises `grpc.RpcError`, and nothing repeats it."""
        limit_s = self._policy.deadline_s if timeout is None else timeout
        return self._inner.future(request, timeout=limit_s, **kwargs)

    def _repeat(self, call: Callable[..., Any], request: Any, timeout: float | None, kwargs: Any) -> Any:
        attempts = _Attempts(self._method, request, timeout, self._policy, self._peer)
        while True:
            try:
                return call(attempts.request, timeout=attempts.timeout_s(), **kwargs)
            except grpc.RpcError as failed:
                self._policy.sleep(attempts.wait_s(failed))


class _AsyncUnary:
    """A unary method of an asyncio stub."""

    def __init__(self, inner: Any, method: str, policy: Policy, peer: Mapping[str, str]) -> None:
        self._inner = inner
        self._method = method
        self._policy = policy
        self._peer = peer

    async def __call__(self, request: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        attempts = _Attempts(self._method, request, timeout, self._policy, self._peer)
        while True:
            try:
                return await self._inner(attempts.request, timeout=attempts.timeout_s(), **kwargs)
            except grpc.RpcError as failed:
                wait_s = attempts.wait_s(failed)
            await asyncio.sleep(wait_s)


class _Stream:
    """A method of a stub that returns a stream. Streams are not repeated here: see `watches`, `downloads` and `uploads`."""

    def __init__(self, inner: Any, policy: Policy, peer: Mapping[str, str]) -> None:
        self._inner = inner
        self._policy = policy
        self._peer = peer

    def __call__(self, request: Any, timeout: float | None = None, **kwargs: Any) -> _Responses:
        limit_s = self._policy.stream_deadline_s if timeout is None else timeout
        return _Responses(self._inner(request, timeout=limit_s, **kwargs), self._peer)


class _Responses:
    """A running stream; also gRPC's call, so that it can be cancelled and asked for its code."""

    def __init__(self, call: Any, peer: Mapping[str, str]) -> None:
        self._call = call
        self._peer = peer

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._call)
        except grpc.RpcError as failed:
            raise of_call(failed, self._peer) from failed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


class _AsyncStream:
    """A method of an asyncio stub that returns a stream."""

    def __init__(self, inner: Any, policy: Policy, peer: Mapping[str, str]) -> None:
        self._inner = inner
        self._policy = policy
        self._peer = peer

    def __call__(self, request: Any = None, timeout: float | None = None, **kwargs: Any) -> _AsyncResponses:
        limit_s = self._policy.stream_deadline_s if timeout is None else timeout
        return _AsyncResponses(self._inner(request, timeout=limit_s, **kwargs), self._peer)


class _AsyncResponses:
    """A running asyncio stream."""

    def __init__(self, call: Any, peer: Mapping[str, str]) -> None:
        self._call = call
        self._peer = peer
        self._responses: AsyncIterator[Any] | None = None

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if self._responses is None:
            self._responses = aiter(self._call)
        try:
            return await anext(self._responses)
        except grpc.RpcError as failed:
            raise of_call(failed, self._peer) from failed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)
