"""Which ports the platform uses on this machine."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from openledger_cli.connection import SERVICES
from servicekit.errors import StartupError


@dataclass(frozen=True)
class Ports:
    """One port a door. They are fixed before anything starts, so that a restarted process is found where it was."""

    grpc: dict[str, int]
    metrics: dict[str, int]
    http: int
    anvil: int
    ray: int

    def all(self) -> list[int]:
        """Every port."""
        return [
            *self.grpc.values(),
            *self.metrics.values(),
            self.http,
            self.anvil,
            self.ray,
        ]


def choose_ports(base: int) -> Ports:
    """Ports from `base` on, or free ones when `base` is 0.

    Raises:
        StartupError: one line that names a port that is in use.
    """
    count = 2 * len(SERVICES) + 3
    numbers = [base + offset for offset in range(count)] if base else _free(count)
    for number in numbers:
        _require_free(number)
    place = iter(numbers)
    return Ports(
        grpc={service: next(place) for service in SERVICES},
        metrics={service: next(place) for service in SERVICES},
        http=next(place),
        anvil=next(place),
        ray=next(place),
    )


def _free(count: int) -> list[int]:
    """Distinct free ports: all are held open until the last is known."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in held]
    finally:
        for one in held:
            one.close()


def _require_free(number: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError:
            raise StartupError(
                f"port {number} is in use: stop what uses it, or give --port-base another number"
                " (0 picks free ports)"
            ) from None
