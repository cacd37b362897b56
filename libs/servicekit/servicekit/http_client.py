"""An HTTP client for synchronous code whose exchanges end in time, whatever the peer does.

The timeouts of HTTP libraries are per read: a peer that sends a byte from time to time, in the headers or in the body, keeps its
caller forever. Here the deadline is for the whole exchange. One thread of the process runs an event loop for all clients, which
cancels an exchange at its deadline and closes its connection; no thread stays behind.

    client = HttpClient(timeout_s=10)
    answer = client.exchange("GET", "https://issuer/keys")
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotDone
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from servicekit.deadlines import CONNECT_S, HTTP_S

MAX_BYTES = 1 << 20
_CLOSE_S = 2.0


class HttpError(OSError):
    """There is no answer; the text says from whom and why, in one line.

    Attributes:
        reason: the same without the peer.
    """

    def __init__(self, reason: str, peer: str = "") -> None:
        super().__init__(f"{peer}: {reason}" if peer else reason)
        self.reason = reason


class HttpTimeout(HttpError):
    """The exchange was not complete in time."""


class HttpTooLarge(HttpError):
    """The answer exceeds the limit."""


def shown(url: str) -> str:
    """Returns the scheme, host and port of a URL, for logs and errors: users, paths and queries may hold keys."""
    try:
        parts = urlsplit(url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")
    except ValueError:
        return "a URL that is not valid"


@dataclass(frozen=True)
class Answer:
    """A complete response."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    """Case does not matter."""


class HttpClient:
    """Keeps connections open between exchanges. Safe for several threads, and after a fork.

    Args:
        timeout_s: for a whole exchange.
        max_bytes: largest body that is read.
        environment: whether the proxies and certificates that environment variables name are used.
        transport: for tests.
    """

    def __init__(
        self,
        timeout_s: float = HTTP_S,
        max_bytes: int = MAX_BYTES,
        *,
        environment: bool = False,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.timeout_s = timeout_s
        self._connect_s = min(CONNECT_S, timeout_s)
        self._max_bytes = max_bytes
        self._environment = environment
        self._transport = transport
        self._lock = threading.Lock()
        self._client: httpx.AsyncClient | None = None
        self._pid = 0

    def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        json: Any = None,
    ) -> Answer:
        """Sends a request and returns the answer, whatever its status. Does not follow redirects.

        Raises:
            HttpError: there was no complete answer in time.
        """
        client = self._current()
        work = self._exchange(client, method, url, headers=headers, content=content, json=json)
        running: Future[Answer] = asyncio.run_coroutine_threadsafe(work, _loop())
        try:
            return running.result(self.timeout_s + _CLOSE_S)
        except NotDone:
            running.cancel()
            raise self._late(url) from None
        except httpx.ConnectTimeout as error:
            raise HttpTimeout(f"no connection within {self._connect_s:g} s", shown(url)) from error
        except httpx.TimeoutException as error:
            raise self._late(url) from error
        except (httpx.InvalidURL, httpx.UnsupportedProtocol):  # their texts quote the URL
            raise HttpError("not a URL of HTTP", shown(url)) from None
        except httpx.HTTPError as error:
            raise HttpError(f"{type(error).__name__}: {error}".rstrip(": "), shown(url)) from error

    def close(self) -> None:
        """Closes the connections. The next exchange opens others."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None and self._pid == os.getpid():
            asyncio.run_coroutine_threadsafe(client.aclose(), _loop()).result(_CLOSE_S)

    async def _exchange(self, client: httpx.AsyncClient, method: str, url: str, **content: Any) -> Answer:
        body = bytearray()
        try:
            async with asyncio.timeout(self.timeout_s), client.stream(method, url, **content) as response:
                async for part in response.aiter_bytes():
                    body += part
                    if len(body) > self._max_bytes:
                        raise HttpTooLarge(f"an answer of more than {self._max_bytes} bytes", shown(url))
        except TimeoutError:
            raise self._late(url) from None
        return Answer(response.status_code, bytes(body), response.headers)

    def _late(self, url: str) -> HttpTimeout:
        return HttpTimeout(f"no whole answer within {self.timeout_s:g} s", shown(url))

    def _current(self) -> httpx.AsyncClient:
        """Returns the client of this process: a fork does not share connections."""
        with self._lock:
            if self._client is None or self._pid != os.getpid():
                self._pid = os.getpid()
                self._client = httpx.AsyncClient(
                    timeout=httpx.Timeout(self.timeout_s, connect=self._connect_s),
                    trust_env=self._environment,
                    transport=self._transport,
                )
            return self._client


class _LoopThread:
    """The event loop of all clients of this process, and its thread."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="http client", daemon=True).start()


_lock = threading.Lock()
_running: _LoopThread | None = None


def _loop() -> asyncio.AbstractEventLoop:
    global _running
    with _lock:
        if _running is None or _running.pid != os.getpid():
            _running = _LoopThread()
        return _running.loop


def _forget_lock() -> None:
    """After a fork: another thread of the parent may have held it."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_lock)
