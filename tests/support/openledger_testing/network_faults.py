"""A TCP proxy that fails as networks and peers do. Put it between a client and its server, and let a fault strike.

with FaultyProxy(server_port) as proxy:
    client = connect(proxy.port)
    proxy.strike(Mode.VANISH)
    ...
    proxy.heal()
"""

from __future__ import annotations

import socket
import struct
import threading
from enum import Enum
from types import TracebackType
from typing import Self

_POLL_S = 0.02
_CHUNK = 1 << 16
_ABORT = struct.pack("ii", 1, 0)


class Mode(Enum):
    """What the proxy does. After `heal`, connections that HOLE, VANISH or HALF_OPEN struck stay silent: a client needs others."""

    PASS = "pass"
    DELAY = "delay"
    """Every piece arrives late, in both directions."""
    RESET = "reset"
    """Half of the next answer arrives, then the connection is reset."""
    HOLE = "hole"
    """Connections are accepted, and what they send is read and dropped."""
    VANISH = "vanish"
    """Nothing is read or sent any more, and nothing is closed; the server's end stays open too."""
    HALF_OPEN = "half-open"
    """The server's end is closed, and the client is not told."""
    DRIP = "drip"
    """Answers arrive byte by byte, slower than any real peer."""


_SILENT = {Mode.HOLE, Mode.VANISH, Mode.HALF_OPEN}


class FaultyProxy:
    """Forwards to a port of this machine, or to the path of a Unix socket."""

    def __init__(self, target: int | str, *, delay_s: float = 2.0, drip_every_s: float = 0.02) -> None:
        self.target = target
        """May be changed: the peer was replaced, and new connections reach another one."""
        self.delay_s = delay_s
        self.drip_every_s = drip_every_s
        self.mode = Mode.PASS
        self.accepted = 0
        self._closed = threading.Event()
        self._connections: list[_Connection] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._listener.settimeout(_POLL_S)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, name="faulty proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closed.set()
        self._thread.join(10)
        self._listener.close()
        for connection in self._all():
            connection.close()

    def strike(self, mode: Mode) -> None:
        """Begins a fault, for open connections and for new ones."""
        self.mode = mode
        if mode in _SILENT:
            for connection in self._all():
                connection.silence()

    def heal(self) -> None:
        """Ends the fault: new connections work."""
        self.mode = Mode.PASS

    def replace(self, target: int | str) -> None:
        """Replaces the peer: its connections are cut without a word to the client, and new ones reach the new peer."""
        self.target = target
        self.strike(Mode.HALF_OPEN)
        self.heal()

    def _all(self) -> list[_Connection]:
        with self._lock:
            return list(self._connections)

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            self.accepted += 1
            try:
                server = self._connect()
            except OSError:
                client.close()
                continue
            connection = _Connection(self, client, server)
            with self._lock:
                self._connections.append(connection)
            if self.mode in _SILENT:
                connection.silence()
            connection.start()

    def _connect(self) -> socket.socket:
        if isinstance(self.target, int):
            return socket.create_connection(("127.0.0.1", self.target), timeout=5)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.settimeout(5)
        server.connect(self.target)
        return server


class _Connection:
    """One client's connection, and its connection to the server."""

    def __init__(self, proxy: FaultyProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        for end in (client, server):
            end.settimeout(_POLL_S)
        self._closed = threading.Event()
        self._silenced: Mode | None = None

    def start(self) -> None:
        for source, sink, is_answer in (
            (self._client, self._server, False),
            (self._server, self._client, True),
        ):
            threading.Thread(
                target=self._forward, args=(source, sink, is_answer), name="faulty proxy", daemon=True
            ).start()

    def silence(self) -> None:
        self._silenced = self._proxy.mode
        if self._silenced is Mode.HALF_OPEN:
            self._server.close()

    def close(self) -> None:
        self._closed.set()
        self._client.close()
        self._server.close()

    def _forward(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        try:
            while not self._closed.is_set():
                if self._silenced is Mode.VANISH or (self._silenced and is_answer):
                    self._closed.wait(_POLL_S)
                    continue
                try:
                    data = source.recv(_CHUNK)
                except TimeoutError:
                    continue
                if self._silenced:
                    if not data:
                        return
                    continue
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                self._send(sink, data, is_answer)
        except OSError:
            if self._silenced is None:
                self.close()

    def _send(self, sink: socket.socket, data: bytes, is_answer: bool) -> None:
        mode = self._proxy.mode
        if mode is Mode.DELAY:
            self._closed.wait(self._proxy.delay_s)
        if mode is Mode.RESET and is_answer:
            sink.sendall(data[: len(data) // 2])
            sink.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            self.close()
        elif mode is Mode.DRIP and is_answer:
            for at in range(len(data)):
                if self._closed.wait(self._proxy.drip_every_s) or self._silenced:
                    return
                sink.sendall(data[at : at + 1])
        else:
            sink.settimeout(30)
            sink.sendall(data)
            sink.settimeout(_POLL_S)
