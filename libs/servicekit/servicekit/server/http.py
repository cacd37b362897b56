"""An ASGI application in the service's own event loop, with the service's own signals and logs."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from servicekit.errors import StartupError

if TYPE_CHECKING:
    import uvicorn


class HttpServer:
    """Serves an ASGI app by uvicorn, which is loaded only by services that have such a door; by TLS where a context is given.

    Raises:
        StartupError: the port is in use, or uvicorn is not installed.
    """

    def __init__(self, app: Any, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._server = _make(app, tls)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
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
        """Takes no new requests and gives running ones ``grace_s``."""
        self._server.config.timeout_graceful_shutdown = max(1, round(grace_s))
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._socket.close()


def _make(app: Any, tls: ssl.SSLContext | None) -> uvicorn.Server:
    try:
        import uvicorn
    except ImportError:
        raise StartupError("an HTTP door needs the package uvicorn") from None

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            """The service has the signals: it drains all its doors together."""
            yield

    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="auto", server_header=False)
    config.load()
    config.ssl = tls  # its own options read the files once, and never again
    return Server(config)
