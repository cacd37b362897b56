"""An ASGI application in the service's own event loop, with the service's own signals and logs."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from servicekit.errors import StartupError
from servicekit.server.connection_count import Connections
from servicekit.server.steps.body import MAX_HEADER_BYTES

if TYPE_CHECKING:
    import uvicorn


_BACKLOG = 4096
"""Connections that wait to be accepted: a full queue would make honest clients wait for a second."""


class HttpServer:
    """Serves an ASGI application with uvicorn, which only services with an HTTP API load. Uses TLS if there is a context.

    Raises:
        StartupError: the port is in use, or uvicorn is not installed.
    """

    def __init__(
        self,
        app: Any,
        host: str,
        port: int,
        *,
        most: int,
        most_per_address: int,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`most`: connections, and `most_per_address` of them from one address."""
        self._server = _make(app, tls)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = _listener(family, most, most_per_address)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
        except OSError as error:
            self._socket.close()
            raise StartupError(f"cannot serve HTTP on {host}:{port}: {error.strerror}") from None
        self.port: int = self._socket.getsockname()[1]
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns once requests are accepted."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started:
            if self._task.done():
                raise StartupError("the HTTP application did not start")
            await asyncio.sleep(0.01)

    async def stop(self, grace_s: float) -> None:
        """Refuses new requests and waits ``grace_s`` for running ones."""
        self._server.config.timeout_graceful_shutdown = max(1, round(grace_s))
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._socket.close()


def _listener(family: int, most: int, most_per_address: int) -> socket.socket:
    from servicekit.server.connections import BoundedListener

    made = BoundedListener(family, socket.SOCK_STREAM)
    made.connections = Connections(most, most_per_address)
    return made


def _make(app: Any, tls: ssl.SSLContext | None) -> uvicorn.Server:
    try:
        import uvicorn

        from servicekit.server.connections import BoundedProtocol, repeated_lines
    except ImportError:
        raise StartupError("serving HTTP needs the package uvicorn") from None

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            """Captures no signals: the service handles them, because it drains all of its servers together."""
            yield

    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        log_config=None,
        access_log=False,
        lifespan="auto",
        server_header=False,
        backlog=_BACKLOG,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
    )
    config.load()
    for name in ("uvicorn.error", "asyncio"):
        logging.getLogger(name).addFilter(repeated_lines())
    config.ssl = tls  # uvicorn's own options read the files only once
    return Server(config)
