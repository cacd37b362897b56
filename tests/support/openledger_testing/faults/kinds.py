"""What can happen to a running platform. A fault strikes, lasts, and is over; then recovery is waited for."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

from openledger_client.services import ALL
from openledger_ops.reconcile.book import Fault as Kind
from openledger_testing.faults.rig import Rig, wrong
from openledger_testing.network_faults import Mode

SERVICES = tuple(service.name for service in ALL)
STOPPED_S = 20.0
"""How long a stopped process stays so: twice the lease of a consumer group's member."""
NETWORK_S = 15.0
"""How long a fault of the network lasts."""
DRAINS = 4
"""Callers, threads and the outbox have `grace_s` each, in this order; a slower process does not end by itself."""


@dataclass(frozen=True)
class Fault:
    """One thing that happens to one part."""

    name: str
    part: str
    strike: Callable[[Rig, str], None]
    """Returns when the cause is gone: what then still fails has to recover by itself."""
    polite: bool = False
    """Calls that have begun must end well."""

    def __str__(self) -> str:
        return f"{self.name} {self.part}"


@dataclass(frozen=True)
class Outcome:
    """A row of the table."""

    fault: Fault
    at_s: float
    recovered_s: float
    lost: int
    doubled: int
    failed: int
    """Requests that had been accepted and failed: acknowledged things that are nowhere, and, where the fault is polite,
    calls that had begun and were cut."""
    cut: int
    """Calls that were cut and sent again, as any client must when a server dies."""
    details: Sequence[str]


def _kill(rig: Rig, part: str) -> None:
    rig.signal(part, signal.SIGKILL)


def _terminate(rig: Rig, part: str) -> None:
    pid = rig.signal(part, signal.SIGTERM)
    begun = time.monotonic()
    rig.wait(lambda: not psutil.pid_exists(pid), f"{part} ends")
    took_s = time.monotonic() - begun
    assert took_s < DRAINS * rig.grace_s, f"{part} ended {took_s:.0f} s after SIGTERM"


def _stop(rig: Rig, part: str) -> None:
    pid = rig.signal(part, signal.SIGSTOP)
    time.sleep(STOPPED_S)  # the fault itself: it lasts
    os.kill(pid, signal.SIGCONT)


def _fill(rig: Rig, part: str) -> None:
    """Until a caller of this service was refused: the full disk has been felt."""
    promises, call = rig.load.promises, {"datanet": "Contribute", "inference": "Generate"}[part]

    def refusals() -> int:
        return sum(line.startswith(call) for line in [*promises.refused, *promises.cut])

    with rig.full_disk(part):
        before = refusals()
        rig.wait(lambda: refusals() > before, f"a caller refused by {part}")


def _fill_event_log(rig: Rig, part: str) -> None:
    """Until two services could not send: contributions and answers are taken in all the same, and wait."""
    felt = {"datanet": "openledger_outbox_failures_total", "inference": "openledger_wal_send_failures_total"}
    with rig.full_disk(part):
        before = {service: rig.metric(service, name) for service, name in felt.items()}
        rig.wait(
            lambda: all(rig.metric(service, felt[service]) > count for service, count in before.items()),
            "events that could not be sent",
        )


def _kill_kafka(rig: Rig, part: str) -> None:
    assert rig.kafka is not None
    rig.kafka.kill()
    rig.kafka.start()


def _crash_postgresql(rig: Rig, part: str) -> None:
    assert rig.postgresql is not None
    rig.postgresql.crash()
    rig.postgresql.start()


def _network(mode: Mode) -> Callable[[Rig, str], None]:
    def strike(rig: Rig, part: str) -> None:
        assert rig.postgresql is not None
        rig.postgresql.network.strike(mode)
        time.sleep(NETWORK_S)  # the fault itself: it lasts
        rig.postgresql.network.heal()

    return strike


def possible(rig: Rig) -> list[Fault]:
    """Everything that can happen to this platform."""
    found = [Fault("kill -9", part, _kill) for part in (*SERVICES, "anvil")]
    found += [Fault("SIGTERM", part, _terminate, polite=True) for part in SERVICES]
    found += [Fault("SIGSTOP 20 s", part, _stop) for part in SERVICES]
    if rig.kafka is not None:
        found.append(Fault("kill -9", "kafka", _kill_kafka))
    if rig.postgresql is not None:
        found.append(Fault("crash and restart", "postgresql", _crash_postgresql))
        found += [
            Fault(f"network {NETWORK_S:.0f} s", f"postgresql, {mode.value}", _network(mode))
            for mode in (Mode.VANISH, Mode.HOLE, Mode.HALF_OPEN, Mode.RESET)
        ]
    if rig.has_disks:
        found.append(Fault("disk full", "inference", _fill))
    if rig.has_disks and not rig.servers:
        found += [Fault("disk full", "datanet", _fill), Fault("disk full", "event-log", _fill_event_log)]
    return found


def strike(rig: Rig, fault: Fault, begun: float) -> Outcome:
    """Lets a fault happen, waits for the recovery, counts."""
    cut_before = len(rig.load.promises.cut)
    at = time.monotonic()
    fault.strike(rig, fault.part)
    recovered_s = rig.recovered()
    cut = rig.load.promises.cut[cut_before:]
    book, broken = rig.reconcile(), rig.load.promises.broken(rig.sources)
    failed = [*broken, *(cut if fault.polite else [])]
    return Outcome(
        fault=fault,
        at_s=at - begun,
        recovered_s=recovered_s,
        lost=book.count(Kind.LOST),
        doubled=book.count(Kind.DOUBLED),
        failed=len(failed),
        cut=len(cut),
        details=[*wrong(book), *failed],
    )


def drawn(rig: Rig, seed: int) -> Sequence[Fault]:
    """All possible faults, in an order that the seed decides."""
    found = possible(rig)
    random.Random(seed).shuffle(found)
    return found
