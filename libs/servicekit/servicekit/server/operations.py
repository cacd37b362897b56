"""The door for those who operate the service: /metrics, /healthz, /readyz. Its own thread, so it answers under load."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from prometheus_client import REGISTRY, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from servicekit.errors import StartupError

Check = Callable[[], str | None]
"""None when well, else one line that says what is wrong."""


class OperationsServer:
    """Serves until closed.

    Args:
        host, port: where; port 0 picks a free one.
        alive: what /healthz asks; failing it means that the process should be restarted.
        ready: what /readyz asks; failing it means that no calls should be sent now.
        warnings: what /readyz tells beside: `kind` and `message` of what works and should not stay as it is.

    Raises:
        StartupError: the port is in use.
    """

    def __init__(
        self, host: str, port: int, alive: Check, ready: Check, warnings: Sequence[Mapping[str, str]] = ()
    ) -> None:
        checks = {"/healthz": alive, "/readyz": ready}

        class Handler(BaseHTTPRequestHandler):
            timeout = 10  # seconds a half-open connection may hold its thread

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
                    self._answer(
                        200 if problem is None else 503, "application/json", json.dumps(body).encode()
                    )
                else:
                    self._answer(404, "text/plain", b"/metrics, /healthz, /readyz\n")

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                """Scrapes are not news."""

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


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """As the base class, but without looking up the address's name, which waits for a DNS that may not answer."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
