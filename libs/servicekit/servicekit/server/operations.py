"""The HTTP server for operators: /metrics, /healthz, /readyz. It has its own thread, so it answers under load."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from prometheus_client import REGISTRY, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from servicekit.errors import StartupError
from servicekit.server.connection_count import Connections

_MOST_CONNECTIONS = 64
_MOST_PER_ADDRESS = 32

REQUEST_S = 10.0
"""From the opening of a connection to the end of its request, and again for the answer."""

Check = Callable[[], str | None]
"""Returns None when all is well, else one line about the problem."""


class OperationsServer:
    """Serves until it is closed.

    Args:
        host: the address to listen on.
        port: the port; 0 picks a free one.
        alive: the check of /healthz; when it fails, the process should be restarted.
        ready: the check of /readyz; when it fails, no calls should be sent to the service now.
        warnings: `kind` and `message` of insecure or suspicious settings, which /readyz reports as well.
        loops: what is wrong with background loops and dependencies, which /readyz reports as well.

    Raises:
        StartupError: the port is in use.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        alive: Check,
        ready: Check,
        warnings: Sequence[Mapping[str, str]] = (),
        loops: Callable[[], Sequence[Mapping[str, object]]] = tuple,
    ) -> None:
        checks = {"/healthz": alive, "/readyz": ready}

        class Handler(BaseHTTPRequestHandler):
            def setup(self) -> None:
                super().setup()
                self.rfile = io.BufferedReader(_BoundedReader(self.connection, REQUEST_S))

            def do_GET(self) -> None:
                path = self.path.split("?", 1)[0]
                if path == "/metrics":
                    self._answer(200, CONTENT_TYPE_LATEST, generate_latest(REGISTRY))
                elif path in checks:
                    problem = checks[path]()
                    body: dict[str, Any] = {"status": "ok"}
                    if problem is not None:
                        body = {"status": "failing", "reason": problem}
                    if path == "/readyz":
                        body["warnings"] = list(warnings)
                        body["loops"] = list(loops())
                    self._answer(
                        200 if problem is None else 503, "application/json", json.dumps(body).encode()
                    )
                else:
                    self._answer(404, "text/plain", b"/metrics, /healthz, /readyz\n")

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.connection.settimeout(REQUEST_S)  # for all of the answer
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                """Does not log scrapes."""

        try:
            self._server = _Server((host, port), Handler)
        except OSError as error:
            raise StartupError(f"cannot serve metrics on {host}:{port}: {error.strerror}") from None
        self.port: int = self._server.server_address[1]
        serve = partial(self._server.serve_forever, poll_interval=0.1)
        threading.Thread(target=serve, name="operations", daemon=True).start()

    def close(self) -> None:
        """Stops serving."""
        self._server.shutdown()
        self._server.server_close()


class _BoundedReader(io.RawIOBase):
    """Reads from a connection for a limited time in total. A socket's own timeout starts again with every byte."""

    def __init__(self, connection: socket.socket, limit_s: float) -> None:
        self._connection = connection
        self._until = time.monotonic() + limit_s

    def readable(self) -> bool:
        """Returns True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Returns the number of bytes read. Raises TimeoutError at the end of the time."""
        self._connection.settimeout(max(0.001, self._until - time.monotonic()))
        return self._connection.recv_into(buffer)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = (
        256  # with the library's 5, a burst of connections would make others wait for seconds
    )

    def __init__(self, *arguments: Any) -> None:
        self._connections = Connections(_MOST_CONNECTIONS, _MOST_PER_ADDRESS)
        super().__init__(*arguments)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Refuses a connection when too many are open, in all or from its address: each has a thread."""
        return self._connections.admit(str(client_address[0]))

    def process_request(self, request: Any, client_address: Any) -> None:
        """Starts the thread of an admitted connection."""
        try:
            super().process_request(request, client_address)
        except BaseException:  # there is no thread that would count its end
            self._connections.left(str(client_address[0]))
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serves one connection, in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.left(str(client_address[0]))

    def server_bind(self) -> None:
        """Binds like the base class, but without a reverse DNS lookup, which may block."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
