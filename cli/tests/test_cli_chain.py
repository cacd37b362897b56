"""What a node answers ends in time, however it sends it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from openledger_cli.chain import Chain
from openledger_client.errors import Unavailable
from servicekit.testing.waiting import LONGEST_S


@pytest.fixture
def dripping() -> Iterator[str]:
    """The address of a node that sends a byte of its answer from time to time, and never its last."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
                while not ended.wait(0.05):
                    try:
                        connection.sendall(b" ")
                    except OSError:
                        return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        ended.set()
        thread.join(LONGEST_S)


def test_a_node_that_drips_does_not_keep_a_command(dripping: str) -> None:
    with pytest.raises(Unavailable, match="no chain answers"):  # what the node sends has no end
        Chain(dripping, timeout_s=0.5)
