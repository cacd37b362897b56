"""Free ports for programs that cannot choose one themselves."""

from __future__ import annotations

import random
import socket

_FIRST, _LAST = 20_000, 32_767
"""Below the range from which Linux and macOS take the ports of outgoing connections: those come and go all the time, and
would take a port between its choice and its use."""


def free_ports(count: int) -> list[int]:
    """Returns distinct ports of 127.0.0.1 that are free now.

    Raises:
        OSError: there are not so many.
    """
    found: list[int] = []
    for port in random.SystemRandom().sample(range(_FIRST, _LAST + 1), _LAST + 1 - _FIRST):
        if len(found) == count:
            return found
        if is_free(port):
            found.append(port)
    raise OSError(f"fewer than {count} ports from {_FIRST} to {_LAST} are free")


def is_free(port: int) -> bool:
    """Returns whether a server could listen on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
