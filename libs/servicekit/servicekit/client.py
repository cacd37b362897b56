"""Channels to services: they bring the caller's token and trace, and keep connections alive.

Nothing is retried here: only the caller knows whether a call may be sent twice (it has a ``request_id``, or only reads).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import grpc

from servicekit.client_span import ClientSpan
from servicekit.errors import StartupError

Token = str | Callable[[], str] | None
"""A token, or what gives the present one: tokens expire, channels live on."""

_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", 4 << 20),
    ("grpc.max_send_message_length", 16 << 20),  # what our servers receive
    # A channel that was replaced, or that nobody uses, holds no connection for long.
    ("grpc.client_idle_timeout_ms", 300_000),
    # A service that restarts is found again within a second, not after gRPC's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


@dataclass(frozen=True)
class Tls:
    """PEM files of an encrypted channel: whom to trust, and for mTLS who one is.

    They are looked at again while the channel lives: calls that begin after the files changed go over a new connection
    with what the files say then, calls that run end where they began.
    """

    ca: Path
    cert: Path | None = None
    key: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """gRPC's form of what the files hold now.

        Raises:
            StartupError: a file cannot be read.
        """
        try:
            ca, cert, key = (None if p is None else p.read_bytes() for p in (self.ca, self.cert, self.key))
        except OSError as error:
            raise StartupError(f"cannot read {error.filename}: {error.strerror}") from None
        return grpc.ssl_channel_credentials(ca, key, cert)

    def stamp(self) -> tuple[tuple[int, int, int], ...]:
        """What changes when a file does. Raises OSError."""
        stats = [file.stat() for file in (self.ca, self.cert, self.key) if file is not None]
        return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats)


def channel(address: str, token: Token = None, tls: Tls | None = None) -> grpc.aio.Channel:
    """A channel for asyncio code, made inside the event loop that uses it. Plain text without ``tls``."""
    return cast("grpc.aio.Channel", _Channel(grpc.aio, address, token, tls))


def sync_channel(address: str, token: Token = None, tls: Tls | None = None) -> grpc.Channel:
    """A channel for plain code; safe for many threads. Plain text without ``tls``."""
    return cast("grpc.Channel", _Channel(grpc, address, token, tls))


class _Channel:
    """A channel whose calls bring metadata and that follows its certificates. Not gRPC's interceptors: they need four
    classes for each of the two APIs, and asyncio's change how a stream is cancelled."""

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
        """gRPC's own channel, a new one where the certificates changed. Files that cannot be read change nothing."""
        if self._tls is not None and _stamp(self._tls) not in (None, self._stamp):
            with self._lock:
                stamp = _stamp(self._tls)
                if stamp not in (None, self._stamp):
                    try:
                        made = self._open()
                    except StartupError:
                        return self._inner
                    # Closing it would cancel its calls. It is kept until this one closes: certificates change once in
                    # hours, and a channel without calls gives its connection up by itself.
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
        """Closes what was opened; for asyncio, to be awaited. Only the present channel waits for a grace."""
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
    """A method of a stub, in each of the forms gRPC gives it."""

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
            span.raised(error)
            raise
        span.ends_with(result)
        return result

    def _complete(self, metadata: Any, pairs: dict[str, str]) -> tuple[tuple[str, str | bytes], ...]:
        """What the caller gave stands; token and trace are added where it gave none."""
        token = self._over.token
        token = token() if callable(token) else token
        if token is not None:
            pairs["authorization"] = f"Bearer {token}"
        given = tuple(metadata or ())
        return (*given, *((key, value) for key, value in pairs.items() if key not in dict(given)))
