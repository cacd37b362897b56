"""Which ports the platform uses on this machine."""

from __future__ import annotations

from dataclasses import dataclass

from openledger_client import services
from servicekit.errors import StartupError
from servicekit.ports import free_ports, is_free


@dataclass(frozen=True, kw_only=True)
class Ports:
    """One port for each endpoint. They are fixed before anything starts, so that a restarted process keeps its address."""

    grpc: dict[str, int]
    """gRPC API, by service."""
    metrics: dict[str, int]
    """/metrics and /readyz, by service."""
    http: dict[str, int]
    """HTTP API, by service that has one."""
    anvil: int
    ray: int

    def all(self) -> list[int]:
        """Returns every port."""
        return [*self.grpc.values(), *self.metrics.values(), *self.http.values(), self.anvil, self.ray]


def port_count() -> int:
    """Returns how many ports a platform needs."""
    return 2 * len(services.ALL) + sum(bool(service.http) for service in services.ALL) + 2


def choose_ports(base: int) -> Ports:
    """Returns ports from `base` on, or free ones when `base` is 0.

    Raises:
        StartupError: one line that names a port that is in use.
    """
    numbers = [base + offset for offset in range(port_count())] if base else free_ports(port_count())
    for number in numbers:
        _require_free(number)
    ports = iter(numbers)
    return Ports(
        grpc={service.name: next(ports) for service in services.ALL},
        metrics={service.name: next(ports) for service in services.ALL},
        http={service.name: next(ports) for service in services.ALL if service.http},
        anvil=next(ports),
        ray=next(ports),
    )


def _require_free(number: int) -> None:
    if not is_free(number):
        raise StartupError(
            f"port {number} is in use: stop what uses it, or give --port-base another number"
            " (0 picks free ports)"
        )
