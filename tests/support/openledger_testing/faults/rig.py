"""A small platform under load, and the means to break it: processes, disks, servers."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
import httpx
from openledger.attribution.v1 import attribution_pb2
from openledger.settlement.v1 import settlement_pb2

from openledger_client.addresses import Addresses
from openledger_client.calls import Policy
from openledger_client.client import Client
from openledger_client.errors import NotFound, OpenLedgerError, Unavailable
from openledger_client.retries import Retries
from openledger_client.services import ALL, by_name
from openledger_ops.doctor.samples import Samples
from openledger_ops.health import serving
from openledger_ops.reconcile.book import Book, Fault
from openledger_ops.reconcile.reconciliation import Sources, reconcile
from openledger_ops.up.plan import supervisor_socket
from openledger_ops.up.supervise import processes_of
from openledger_testing.faults.load import PACE_S, Load
from openledger_testing.faults.peers import Peers
from openledger_testing.kafka_broker import KafkaBroker
from openledger_testing.postgresql import Postgresql
from servicekit.auth.development_token import DevelopmentToken
from threat_intel.platform import Platform

PATIENCE_S = 240.0
"""Longest wait for a recovery; what works needs seconds, on a busy machine a minute."""
GRACE_S = 10.0
"""The services' own default."""
_POLL_S = 0.1
_PLATFORM_ADDRESS = "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65"
_DISK = "64m"
_ON_CHAIN = (
    settlement_pb2.BATCH_STATE_COMMITTED,
    settlement_pb2.BATCH_STATE_SETTLED,
    settlement_pb2.BATCH_STATE_FINAL,
)
OWN_DISKS = ("datanet", "inference", "event-log")
"""Folders of the platform's that are disks of their own, where that may be made; the last holds the embedded log."""


@dataclass(kw_only=True)
class Rig:
    """One platform. `servers`: with Apache Kafka and PostgreSQL, as in production, instead of the embedded ones."""

    folder: Path
    seed: int
    servers: bool
    pace_s: float = PACE_S
    """Of the load's callers, between two calls."""
    grace_s: float = GRACE_S
    """What a service that is asked to end gives its callers, its threads and its outbox, each."""
    proxied: bool = False
    """With every process that services call behind a network that can fail."""
    peers: Peers | None = None
    kafka: KafkaBroker | None = None
    postgresql: Postgresql | None = None
    has_disks: bool = False
    load: Load = field(init=False)
    platform: Platform = field(init=False)
    sources: Sources = field(init=False)
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        with self._stack as stack:
            state = (self.folder / "state").resolve()
            settings = {
                "OPENLEDGER_CHAIN_RELAY_BATCH_MAX_AGE_S": "2",
                "OPENLEDGER_CHAIN_RELAY_REWARD_INTERVAL_S": "5",
                "OPENLEDGER_CHAIN_RELAY_PLATFORM_ADDRESS": _PLATFORM_ADDRESS,
                **{service.variable("grace_s"): str(self.grace_s) for service in ALL},
            }
            if self.proxied:
                self.peers = Peers(stack, self.folder, state)
                self.kafka, self.postgresql = self.peers.kafka, self.peers.postgresql
                settings |= self.peers.settings
            elif self.servers:
                self.kafka = stack.enter_context(KafkaBroker(self.folder / "kafka"))
                self.postgresql = stack.enter_context(Postgresql())
                settings |= self.postgresql.urls()
            event_log = (
                f"kafka://{self.kafka.address}" if self.kafka else f"embedded:{state}/event-log/events.db"
            )
            if self.peers is not None:
                event_log = self.peers.event_log
            disks = [stack.enter_context(_disk(state / part)) for part in OWN_DISKS]
            self.has_disks = all(disks)
            self.platform = stack.enter_context(
                Platform(
                    state_dir=state,
                    base_model="tiny",
                    event_log=event_log,
                    port_base=0 if self.peers is None else self.peers.port_base,
                    settings=settings,
                )
            )
            token = DevelopmentToken(state, "auditor", ("auditor",))
            auditor = Client(Addresses(state_dir=state), token=token)
            self.sources = Sources(
                client=stack.enter_context(auditor),
                event_log=event_log,
                rpc=self.platform.endpoints["chain"],
                patience_s=PATIENCE_S,
            )
            self.load = Load(self.seed, self.pace_s)
            self.load.prepare(self.connect("olga", ("curator",)))
            self.load.start(self.connect)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.load.stop()
        self._stack.close()

    def connect(self, name: str, roles: tuple[str, ...]) -> Client:
        """A client for a caller. It repeats nothing: the load counts what fails and repeats by itself."""
        return Client(
            Addresses(state_dir=self.platform.state_dir),
            token=DevelopmentToken(self.platform.state_dir, name, roles),
            policy=Policy(retries=Retries(attempts=1)),
        )

    def pid(self, program: str) -> int:
        """Of a program that runs."""
        found: list[int] = []

        def runs() -> bool:
            processes = processes_of(supervisor_socket(self.platform.state_dir))
            found[:] = [
                int(p["pid"]) for p in processes if p["name"] == program and p["statename"] == "RUNNING"
            ]
            return bool(found)

        self.wait(runs, f"{program} runs")
        return found[0]

    def signal(self, program: str, number: signal.Signals) -> int:
        """Sends a signal to a program; returns who got it."""
        pid = self.pid(program)
        os.kill(pid, number)
        return pid

    def metric(self, service: str, name: str) -> float:
        """Of a service, summed over labels."""
        address = Addresses(state_dir=self.platform.state_dir).of(by_name(service)).metrics
        page = httpx.get(f"http://{address}/metrics", timeout=10, trust_env=False).raise_for_status().text
        return sum(sample.value for sample in Samples(page).of(name))

    @contextmanager
    def full_disk(self, part: str) -> Iterator[None]:
        """Leaves no byte on one of `OWN_DISKS` while the block runs."""
        ballast = self.platform.state_dir / part / "ballast"
        try:
            with ballast.open("wb", buffering=0) as file:
                block = 1 << 20
                while block:
                    try:
                        file.write(bytes(block))
                    except OSError:  # so much does not fit any more: half of it may
                        block //= 2
            yield
        finally:
            ballast.unlink()

    def recovered(self) -> float:
        """Waits until everything works from end to end; returns how many seconds it took.

        That is: every service says so; a record sent now was acknowledged; a question asked now was answered, the answer
        attributed, and its batch is on the chain.
        """
        begun = time.monotonic()
        self.wait(
            lambda: all(serving(self.platform.endpoints[service.name]) for service in ALL),
            "all services serve",
        )
        records = len(self.load.promises.records)
        probe, auditor = self.connect("probe", ("user",)), self.connect("probe", ("auditor", "operator"))
        inference = ""

        def answered() -> bool:
            nonlocal inference
            inference = self.load.answer(probe, "Is anybody there?", 2)
            return True

        self.wait(lambda: tried(answered), "an answer")
        self.wait(lambda: tried(lambda: _on_chain(auditor, inference)), f"{inference} on the chain")
        self.wait(lambda: len(self.load.promises.records) > records, "a record acknowledged")
        probe.close()
        auditor.close()
        return time.monotonic() - begun

    def reconcile(self) -> Book:
        """Counts, while everything runs."""
        return reconcile(self.sources)

    def come_to_rest(self) -> Book:
        """Ends the load, seals what was contributed, waits until nothing is waiting, and counts."""
        self.load.stop()
        owner = self.connect("olga", ("curator",))
        self.wait(lambda: tried(lambda: bool(self.load.seal(owner, "the-last"))), "the last snapshot")
        owner.close()
        books: list[Book] = []

        def at_rest() -> bool:
            books[:] = [reconcile(self.sources)]
            return not books[0].findings

        begun = time.monotonic()
        while not at_rest() and time.monotonic() < begun + PATIENCE_S:
            time.sleep(1.0)  # what is waiting is recorded, but no signal says when that changes
        return books[0]

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Waits for a condition. Raises AssertionError with the end of the platform's log."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > deadline:
                log = (self.platform.state_dir / "logs" / "platform.log").read_text(errors="replace")
                raise AssertionError(f"not after {PATIENCE_S:.0f} s: {what}\n{log[-6000:]}")
            time.sleep(_POLL_S)


def tried(call: Callable[[], bool]) -> bool:
    """Returns the condition, or False while a service is down or lacks an event."""
    try:
        return call()
    except OpenLedgerError as error:
        transient = (
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.ABORTED,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        )
        if isinstance(error, Unavailable | NotFound) or error.code in transient:
            return False
        raise


def _on_chain(auditor: Client, inference: str) -> bool:
    attribution = attribution_pb2.GetAttributionRequest(name=inference)
    auditor.attribution.GetAttribution(attribution, timeout=10)
    settled = auditor.settlement.GetSettlement(
        settlement_pb2.GetSettlementRequest(inference=inference), timeout=10
    )
    if not settled.batch:
        return False
    batch = auditor.settlement.GetBatch(settlement_pb2.GetBatchRequest(name=settled.batch), timeout=10)
    return batch.state in _ON_CHAIN


@contextmanager
def _disk(folder: Path) -> Iterator[bool]:
    """Makes a folder a small disk of its own; False where this user may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK},mode=0755", "tmpfs", str(folder)]
    may = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield may
    finally:
        if may:
            subprocess.run(["umount", str(folder)], check=True)


def wrong(book: Book) -> list[str]:
    """What a book says is lost or doubled."""
    return [
        f"{each.fault.value} {each.link}: {each.thing}: {each.why}"
        for each in book.findings
        if each.fault is not Fault.WAITING
    ]
