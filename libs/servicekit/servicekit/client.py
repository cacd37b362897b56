"""Channels to services: they bring the caller's token and trace, and keep connections alive.

Nothing is retried here: only the caller knows whether a call may be sent twice (it has a ``request_id``, or only reads).
"""

from __future__ import annotations

from collections.abc import Callable
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
    ("grpc.max_send_message_length", 4 << 20),
    # A service that restarts is found again within a second, not after gRPC's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


@dataclass(frozen=True)
class Tls:
    """PEM files of an encrypted channel: whom to trust, and for mTLS who one is."""

    ca: Path
    cert: Path | None = None
    key: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """gRPC's form of it.

        Raises:
            StartupError: a file cannot be read.
        """
        try:
            ca, cert, key = (None if p is None else p.read_bytes() for p in (self.ca, self.cert, self.key))
        except OSError as error:
            raise StartupError(f"cannot read {error.filename}: {error.strerror}") from None
        return grpc.ssl_channel_credentials(ca, key, cert)


def channel(address: str, token: Token = None, tls: Tls | None = None) -> grpc.aio.Channel:
    """A channel for asyncio code, made inside the event loop that uses it. Plain text without ``tls``."""
    if tls is None:
        inner = grpc.aio.insecure_channel(address, options=_OPTIONS)
    else:
        inner = grpc.aio.secure_channel(address, tls.credentials(), options=_OPTIONS)
    return cast("grpc.aio.Channel", _Channel(inner, address, token))


def sync_channel(address: str, token: Token = None, tls: Tls | None = None) -> grpc.Channel:
    """A channel for plain code; safe for many threads. Plain text without ``tls``."""
    if tls is None:
        inner = grpc.insecure_channel(address, options=_OPTIONS)
    else:
        inner = grpc.secure_channel(address, tls.credentials(), options=_OPTIONS)
    return cast("grpc.Channel", _Channel(inner, address, token))


class _Channel:
    """A channel whose calls bring metadata. Not gRPC's interceptors: they need four classes for each of the two APIs, and
    asyncio's change how a stream is cancelled."""

    def __init__(self, inner: Any, address: str, token: Token) -> None:
        self._inner = inner
        self._address = address
        self._token = token

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> _Callable:
        return self._callable(method, self._inner.unary_unary(method, *args, **kwargs))

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> _Callable:
        return self._callable(method, self._inner.unary_stream(method, *args, **kwargs))

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> _Callable:
        return self._callable(method, self._inner.stream_unary(method, *args, **kwargs))

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> _Callable:
        return self._callable(method, self._inner.stream_stream(method, *args, **kwargs))

    def _callable(self, method: str, inner: Any) -> _Callable:
        return _Callable(inner, method, self._address, self._token)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._inner.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._inner.close()


class _Callable:
    """A method of a stub, in each of the forms gRPC gives it."""

    def __init__(self, inner: Any, method: str, address: str, token: Token) -> None:
        self._inner = inner
        self._method = method
        self._address = address
        self._token = token

    def __call__(self, *args: Any, metadata: Any = None, **kwargs: Any) -> Any:
        return self._call(self._inner, args, metadata, kwargs)

    def with_call(self, *args: Any, metadata: Any = None, **kwargs: Any) -> Any:
        return self._call(self._inner.with_call, args, metadata, kwargs)

    def future(self, *args: Any, metadata: Any = None, **kwargs: Any) -> Any:
        return self._call(self._inner.future, args, metadata, kwargs)

    def _call(self, call: Callable[..., Any], args: Any, metadata: Any, kwargs: Any) -> Any:
        span = ClientSpan(self._method, self._address)
        try:
            result = call(*args, metadata=self._complete(metadata, span.headers()), **kwargs)
        except grpc.RpcError as error:
            span.raised(error)
            raise
        span.ends_with(result)
        return result

    def _complete(self, metadata: Any, pairs: dict[str, str]) -> tuple[tuple[str, str | bytes], ...]:
        """What the caller gave stands; token and trace are added where it gave none."""
        token = self._token() if callable(self._token) else self._token
        if token is not None:
            pairs["authorization"] = f"Bearer {token}"
        given = tuple(metadata or ())
        return (*given, *((key, value) for key, value in pairs.items() if key not in dict(given)))
