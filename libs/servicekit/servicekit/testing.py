"""For tests: a real service in this process, on free ports, that is gone when the block ends."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from servicekit.auth import DevelopmentIssuer
from servicekit.server import Service


@contextmanager
def running(service: Service, timeout_s: float = 20) -> Iterator[Service]:
    """Runs a service in a thread until the block ends, and checks that it stopped without failure.

    Raises:
        RuntimeError: it was not ready, or not stopped, within ``timeout_s``, or a part of it failed.
    """
    outcome: list[int | BaseException] = []

    def run() -> None:
        try:
            outcome.append(service.run())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, name=f"service {service.name}", daemon=True)
    thread.start()
    while not service.wait_ready(0.05):
        timeout_s -= 0.05
        if outcome or timeout_s <= 0:
            raise RuntimeError(f"{service.name} did not start") from _raised(outcome)
    try:
        yield service
    finally:
        service.stop()
        thread.join(timeout_s + service.settings.grace_s)
    if outcome != [0]:
        raise RuntimeError(f"{service.name} did not stop well: {outcome}") from _raised(outcome)


def token(service: Service, roles: Iterable[str], principal: str = "tester") -> str:
    """A token that a service in development mode accepts."""
    return DevelopmentIssuer(service.settings.state_dir, service.settings.auth_audience).mint(
        principal, roles
    )


def _raised(outcome: list[int | BaseException]) -> BaseException | None:
    return next((o for o in outcome if isinstance(o, BaseException)), None)
