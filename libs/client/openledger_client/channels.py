"""gRPC channels that carry the caller's token and trace, keep connections alive and follow renewed certificates.

They have gRPC's own semantics: errors are `grpc.RpcError`, nothing is retried, and a call without a timeout has no
deadline. `Client` adds typed errors, deadlines and retries.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Self, cast

import grpc

from openledger_client.auth import Token
from openledger_client.errors import ConfigurationError
from openledger_client.spans import ClientSpan
from openledger_client.tls import Tls

_OPTIONS: list[tuple[str, Any]] = [
    # A server that has vanished is noticed 20 s after the last sign of it, and the next call connects again.
    ("grpc.keepalive_time_ms", 15_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.max_receive_message_length", 4 << 20),
    ("grpc.max_send_message_length", (4 << 20) + (64 << 10)),  # the limit of the servers
    # A replaced or unused channel closes its connection after a while.
    ("grpc.client_idle_timeout_ms", 300_000),
    # Reconnects to a restarted service within a second; gRPC's default may take two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


def channel(address: str, token: Token = None, tls: Tls | None = None) -> grpc.aio.Channel:
    """Returns a channel for asyncio code; call it inside the event loop that uses the channel. Plain text without `tls`."""
    return cast("grpc.aio.Channel", _Channel(grpc.aio, address, token, tls))


def sync_channel(address: str, token: Token = None, tls: Tls | None = None) -> grpc.Channel:
    """Returns a channel for synchronous code; safe for many threads. Plain text without `tls`."""
    return cast("grpc.Channel", _Channel(grpc, address, token, tls))


class _Channel:
    """Adds metadata to calls and reopens the inner channel when certificates change.

    gRPC's interceptors would need four classes for each of its two APIs, and asyncio's change how a stream is cancelled.
    """

    def __init__(self, api: Any, address: str, token: Token, tls: Tls | None) -> None:
        self._api = api
        self.address = address
        self.token = token
        self._tls = tls
        self._stamp = None if tls is None else _stamp(tls)
        self._lock = threading.Lock()
        self._former: list[Any] = []
        self._inner = self._open()

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> _Callable:
        return _Callable(self, method, lambda inner: inner.unary_unary(method, *args, **kwargs))

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> _Callable:
        return _Callable(self, method, lambda inner: inner.unary_stream(method, *args, **kwargs))

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> _Callable:
        return _Callable(self, method, lambda inner: inner.stream_unary(method, *args, **kwargs))

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> _Callable:
        return _Callable(self, method, lambda inner: inner.stream_stream(method, *args, **kwargs))

    def current(self) -> Any:
        """Returns gRPC's channel; a new one after the certificates changed. Files that cannot be read change nothing."""
        if self._tls is not None and _stamp(self._tls) not in (None, self._stamp):
            with self._lock:
                stamp = _stamp(self._tls)
                if stamp not in (None, self._stamp):
                    try:
                        made = self._open()
                    except ConfigurationError:
                        return self._inner
                    # Closing the old channel would cancel its calls. It stays open until this one closes: certificates
                    # change every few hours, and a channel without calls closes its connection by itself.
                    self._former.append(self._inner)
                    self._inner, self._stamp = made, stamp
        return self._inner

    def _open(self) -> Any:
        if self._tls is None:
            return self._api.insecure_channel(self.address, options=_OPTIONS)
        return self._api.secure_channel(self.address, self._tls.credentials(), options=_OPTIONS)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def close(self, *args: Any) -> Any:
        """Closes all inner channels; asyncio callers await the result. Only the newest channel waits for a grace."""
        closed = [former.close() for former in self._former]
        last = self._inner.close(*args)
        return _all(*closed, last) if last is not None else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.close()


async def _all(*closing: Awaitable[None]) -> None:
    await asyncio.gather(*closing)


def _stamp(tls: Tls) -> tuple[tuple[int, int, int], ...] | None:
    try:
        return tls.stamp()
    except OSError:
        return None


class _Callable:
    """A method of a stub, of any of gRPC's kinds."""

    def __init__(self, over: _Channel, method: str, make: Callable[[Any], Any]) -> None:
        self._over = over
        self._method = method
        self._make = make
        self._made = self._channel = None

    @property
    def _inner(self) -> Any:
        channel = self._over.current()
        if channel is not self._channel:
            self._made, self._channel = self._make(channel), channel
        return self._made

    def __call__(self, *args: Any, metadata: Any = None, **kwargs: Any) -> Any:
        return self._call(self._inner, args, metadata, kwargs)

    def with_call(self, *args: Any, metadata: Any = None, **kwargs: Any) -> Any:
        return self._call(self._inner.with_call, args, metadata, kwargs)

    def future(self, *args: Any, metadata: Any = None, **kwargs: Any) -> Any:
        return self._call(self._inner.future, args, metadata, kwargs)

    def _call(self, call: Callable[..., Any], args: Any, metadata: Any, kwargs: Any) -> Any:
        span = ClientSpan(self._method, self._over.address)
        try:
            result = call(*args, metadata=self._complete(metadata, span.headers()), **kwargs)
        except grpc.RpcError as error:
            span.failed(error)
            raise
        span.ends_with(result)
        return result

    def _complete(self, metadata: Any, pairs: dict[str, str]) -> tuple[tuple[str, str | bytes], ...]:
        """Adds token and trace to the caller's metadata, which win."""
        token = self._over.token
        token = token() if callable(token) else token
        if token is not None:
            pairs["authorization"] = f"Bearer {token}"
        given = tuple(metadata or ())
        return (*given, *((key, value) for key, value in pairs.items() if key not in dict(given)))
