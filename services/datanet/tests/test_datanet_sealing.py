"""An operation seals once, whatever becomes of the processes that run it, and leaves nothing behind when it does not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from google.rpc.status_pb2 import Status
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from datanet import store
from datanet.definition import Datanet
from datanet.entities import Contributor
from datanet.evaluation_items import EvaluationItemsCache
from datanet.intake import Intake
from datanet.registry import Registry
from datanet.review import Review
from datanet.seal_operation import LEASE_S, MAX_ATTEMPTS, MAX_WAITING, OperationState, SealOperation
from datanet.seal_operations import SealOperations
from datanet.seal_runner import SealRunner
from datanet.sealing import LostClaim, Sealing
from datanet.snapshot import SplitRule
from datanet.work_folders import WorkFolders
from identity.names import ContributorName, DatanetName, RecordName, SealOperationName
from identity.snapshot import root
from openledger_client.errors import from_status
from servicekit.auth import Principal
from servicekit.database import engine, migrate, reading, run_in_transaction, utc_now
from servicekit.database.request_ids import UNNAMED, RequestId
from servicekit.database.watches import Changes
from servicekit.errors import ResourceExhausted, Unavailable
from servicekit.lists import Query
from servicekit.objects import ObjectStore
from servicekit.testing.waiting import LONGEST_S, eventually

OWNER = Principal("owner")
NAME, OTHER = DatanetName("threat-intel"), DatanetName("other")
RULE = SplitRule("salt")
REQUEST = RequestId("owner", "SealSnapshot", "request", "sha256:" + "0" * 64)
PENDING, RUNNING, SUCCEEDED = OperationState.PENDING, OperationState.RUNNING, OperationState.SUCCEEDED


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Objects(ObjectStore):
    """An object store that lets nothing through until `gate` is open, and is down for the next `outages` objects."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.gate = threading.Event()
        self.gate.set()
        self.reached = threading.Event()
        self.outages = 0

    def put_chunks(self, chunks: Iterable[bytes]) -> str:
        self.reached.set()
        assert self.gate.wait(LONGEST_S)
        if self.outages:
            self.outages -= 1
            raise Unavailable("OBJECT_STORE_UNAVAILABLE", "the bucket does not answer")
        return super().put_chunks(chunks)


class Process:
    """A process of the service: what seals, with a state folder of its own unless it shares another's."""

    def __init__(self, world: World, folder: str = "one", max_running: int = 2) -> None:
        self.folder = world.path / folder
        self.work = WorkFolders(self.folder)
        self.clock = Clock()
        self.sealing = Sealing(world.database, world.objects, world.changes)
        self.runner = SealRunner(
            engine=world.database,
            sealing=self.sealing,
            changes=world.changes,
            work=self.work,
            max_running=max_running,
            clock=self.clock,
        )
        self._world = world

    def step(self) -> None:
        self.runner.step()

    def until(self, name: SealOperationName, state: OperationState) -> SealOperation:
        """Steps until an operation has this state."""

        def reached() -> bool:
            self.step()
            return self._world.get(name).state is state

        eventually(reached)
        return self._world.get(name)

    def die_in_write(self, operation: SealOperation) -> None:
        """Ends like a process that is killed before its last stage; its lock goes with it."""

        class Killed(BaseException):
            pass

        def killed(stage: str, done: int, total: int) -> None:
            if stage == "write":
                raise Killed

        claimed = self.claim()
        assert claimed.name == operation.name
        with pytest.raises(Killed), self.work.folder(claimed.name) as folder:
            self.sealing.seal(claimed, folder, killed)
        self.work.release()

    def claim(self) -> SealOperation:
        worker = self.work.worker()
        claimed = run_in_transaction(
            self._world.database, lambda session: store.operations.claim_next(session, worker)
        )
        assert claimed is not None
        return claimed

    def files(self) -> list[Path]:
        return [each for each in self.folder.glob("*/*/*") if each.is_file()]


class World:
    """A database with two Datanets of one record each, and the operations on it."""

    def __init__(self, database: Engine, path: Path, datanet: Datanet, encode: Callable[..., bytes]) -> None:
        self.database, self.path = database, path
        self.objects = Objects(path / "objects")
        self.changes = Changes(database, store.operations.versions)
        self.operations = SealOperations(database, self.changes, lambda: None)
        items = EvaluationItemsCache(self.objects)
        self._intake = Intake(database, items, max_rejected=1000)
        self._encode = encode
        registry = Registry(database, items)
        for name in (NAME, OTHER):
            registry.create(OWNER, replace(datanet, name=str(name)), UNNAMED)
            alice = Contributor(
                name=f"{name}/contributors/alice",
                principal="alice",
                display_name="",
                payout_address="",
                consent_licence=datanet.licence,
                consent_time=utc_now(),
            )
            registry.register(OWNER, alice, UNNAMED)
            self.contribute("The group lists processes.", name)

    def contribute(self, content: str, name: DatanetName = NAME) -> None:
        contributor = ContributorName(name.datanet, "alice")
        self._intake.open(Principal("alice"), contributor).write([self._encode(content)])

    def start(self, name: DatanetName = NAME, request: RequestId = UNNAMED) -> SealOperation:
        return self.operations.start(OWNER, name, RULE, request)

    def get(self, name: SealOperationName) -> SealOperation:
        return self.operations.get(OWNER, name)

    def snapshots(self, name: DatanetName = NAME) -> int:
        with reading(self.database) as session:
            return store.snapshots.last_number(session, name)

    def events(self) -> int:
        with reading(self.database) as session:
            query = text("SELECT count(*) FROM outbox WHERE topic = 'datanet.snapshot.v1'")
            return int(session.execute(query).scalar_one())


@pytest.fixture
def world(
    tmp_path: Path, database_url: str, datanet: Datanet, encode: Callable[..., bytes]
) -> Iterator[World]:
    database = engine(database_url)
    migrate(database, "datanet")
    yield World(database, tmp_path, datanet, encode)
    database.dispose()


def test_an_operation_makes_one_snapshot_and_one_event_and_leaves_no_files(world: World) -> None:
    process = Process(world)
    started = world.start()
    assert (started.state, started.queue_position) == (PENDING, 1)
    ended = process.until(started.name, SUCCEEDED)
    assert (ended.snapshot, ended.attempts, ended.queue_position) == (1, 1, 0)
    assert (ended.position.stage, ended.position.done, ended.position.total) == ("write", 1, 1)
    made = process.sealing.list(NAME, Query()).items[0]
    assert root(world.objects.get_bytes(made.records_digest)) == made.root
    assert (world.snapshots(), world.events()) == (1, 1)
    eventually(lambda: not process.files())  # the thread ends after its commit


def test_the_same_request_is_the_same_operation_also_after_its_end(world: World) -> None:
    started = world.start(request=REQUEST)
    assert world.start(request=REQUEST).name == started.name
    Process(world).until(started.name, SUCCEEDED)
    assert world.start(request=REQUEST).snapshot == 1


def test_a_restarted_process_continues_with_the_records_that_it_began_with(world: World) -> None:
    started = world.start()
    Process(world).die_in_write(started)
    assert world.get(started.name).state is RUNNING
    died = utc_now()
    world.contribute("The actor stole browser cookies at night.")
    restarted = Process(world)
    ended = restarted.until(started.name, SUCCEEDED)
    assert ended.attempts == 2
    (made,) = restarted.sealing.list(NAME, Query()).items
    assert made.record_count == 1
    assert made.read_time is not None
    assert made.read_time < died < made.seal_time
    assert world.events() == 1
    eventually(lambda: not restarted.files())


def test_files_of_an_earlier_boot_are_not_trusted(world: World) -> None:
    """They were not flushed to the disk: after a power cut they may be there with other contents."""
    started = world.start()
    process = Process(world)
    process.die_in_write(started)
    for mark in process.folder.rglob("*.done"):
        mark.write_text("another boot")
    world.contribute("The actor stole browser cookies at night.")
    restarted = Process(world)
    restarted.until(started.name, SUCCEEDED)
    assert [each.record_count for each in restarted.sealing.list(NAME, Query()).items] == [2]


def test_another_process_continues_what_shows_no_sign_of_life(world: World) -> None:
    started = world.start()
    silent, other = Process(world, "silent"), Process(world, "other")
    claimed = silent.claim()
    other.step()
    other.clock.now += LEASE_S - 1
    other.step()
    assert world.get(started.name).worker == silent.work.worker()
    other.clock.now += 2
    other.until(started.name, SUCCEEDED)
    with silent.work.folder(claimed.name) as folder, pytest.raises(LostClaim):
        silent.sealing.seal(claimed, folder, lambda *_: None)
    assert (world.snapshots(), world.events()) == (1, 1)


def test_a_sign_of_life_keeps_other_processes_away(world: World) -> None:
    started = world.start()
    slow, other = Process(world, "slow"), Process(world, "other")
    claimed = slow.claim()
    for _ in range(3):
        other.step()
        other.clock.now += LEASE_S - 1
        run_in_transaction(
            world.database,
            lambda session: store.operations.advance(session, claimed.claim, claimed.position),
        )
    other.step()
    assert world.get(started.name).claim == claimed.claim


def test_a_process_that_shares_a_state_folder_runs_nothing_until_the_other_has_ended(world: World) -> None:
    started = world.start()
    first, second = Process(world), Process(world)
    assert first.work.worker()
    second.step()
    assert world.get(started.name).state is PENDING
    first.runner.close()
    second.until(started.name, SUCCEEDED)


def test_of_many_processes_one_claims_an_operation(world: World) -> None:
    world.start()

    def claim(number: int) -> bool:
        claimed = run_in_transaction(
            world.database, lambda session: store.operations.claim_next(session, f"worker {number}")
        )
        return claimed is not None

    with ThreadPoolExecutor(6) as threads:
        assert sum(threads.map(claim, range(6))) == 1


def test_a_datanet_has_one_running_operation_and_others_show_their_place(world: World) -> None:
    first, second, third = world.start(), world.start(), world.start(OTHER)
    assert [world.get(each.name).queue_position for each in (first, second, third)] == [1, 2, 3]
    process = Process(world)
    assert process.claim().name == first.name
    assert process.claim().name == third.name, "the second of the same Datanet waits"
    assert [world.get(each.name).queue_position for each in (first, second, third)] == [0, 1, 0]


def test_no_more_run_at_once_than_the_setting_says(world: World) -> None:
    first, second = world.start(), world.start(OTHER)
    process = Process(world, max_running=1)
    world.objects.gate.clear()
    process.step()
    assert world.objects.reached.wait(LONGEST_S)
    process.step()
    assert [world.get(each.name).state for each in (first, second)] == [RUNNING, PENDING]
    world.objects.gate.set()
    process.until(second.name, SUCCEEDED)


def test_a_queue_has_a_bound(world: World) -> None:
    for _ in range(MAX_WAITING):
        world.start()
    with pytest.raises(ResourceExhausted) as raised:
        world.start()
    assert raised.value.reason == "SEAL_OPERATIONS_WAIT"
    world.start(OTHER)


def test_a_cancelled_operation_stops_and_leaves_nothing(world: World) -> None:
    started, waiting = world.start(), world.start()
    process = Process(world, max_running=1)
    world.objects.gate.clear()
    process.step()
    assert world.objects.reached.wait(LONGEST_S)
    assert process.files()
    cancelled = world.operations.cancel(OWNER, started.name)
    assert (cancelled.state, cancelled.snapshot) == (OperationState.CANCELLED, 0)
    assert world.operations.cancel(OWNER, started.name) == cancelled
    world.operations.cancel(OWNER, waiting.name)
    process.step()
    world.objects.gate.set()
    eventually(lambda: not process.files())
    process.step()
    assert world.get(started.name) == cancelled
    assert (world.snapshots(), world.events()) == (0, 0)
    assert [each for each in (world.path / "objects").rglob("*") if each.is_file()] == []


def test_an_outage_ends_an_attempt_and_a_later_one_succeeds(world: World) -> None:
    started = world.start()
    process = Process(world)
    world.objects.outages = 1
    process.step()
    process.until(started.name, PENDING)
    process.step()
    assert world.get(started.name).state is PENDING, "not at once"
    process.clock.now += 6
    assert process.until(started.name, SUCCEEDED).attempts == 2


def test_an_operation_that_ends_every_process_fails(world: World) -> None:
    started = world.start()

    def take_back(session: Session) -> None:
        for each in store.operations.open_operations(session):
            store.operations.release(session, each.claim)

    for _ in range(MAX_ATTEMPTS):
        run_in_transaction(world.database, take_back)
        process = Process(world)
        process.claim()
        process.work.release()
    failed = Process(world).until(started.name, OperationState.FAILED)
    error = from_status(Status.FromString(failed.error))
    assert error.reason == "SEAL_GIVEN_UP"
    assert f"{MAX_ATTEMPTS} attempts" in str(error)
    assert world.snapshots() == 0


def test_a_stopping_service_leaves_its_operations_to_the_next_one(world: World) -> None:
    started = world.start()
    process = Process(world)
    world.objects.gate.clear()
    process.step()
    assert world.objects.reached.wait(LONGEST_S)
    with ThreadPoolExecutor(1) as threads:
        closing = threads.submit(process.runner.close)
        world.objects.gate.set()
        closing.result(LONGEST_S)
    found = world.get(started.name)
    if found.state is PENDING:  # it was not past its last check
        assert (found.attempts, found.worker) == (0, "")
        assert process.files()
    assert Process(world).until(started.name, SUCCEEDED).attempts == 1
    assert (world.snapshots(), world.events()) == (1, 1)


def test_a_process_that_was_paused_stops_by_itself(world: World) -> None:
    started = world.start()
    process = Process(world)
    world.objects.gate.clear()
    process.step()
    assert world.objects.reached.wait(LONGEST_S)
    process.clock.now += LEASE_S
    world.objects.gate.set()
    eventually(lambda: world.get(started.name).state is PENDING)
    assert world.snapshots() == 0
    process.until(started.name, SUCCEEDED)


@pytest.mark.parametrize("when", ["while it runs", "after it was interrupted"])
def test_a_withdrawn_text_does_not_stay_in_the_files_of_an_operation(world: World, when: str) -> None:
    process = Process(world)
    review = Review(world.database, process.work)
    (record,) = review.list(OWNER, NAME, Query()).items

    def withdraw() -> None:
        review.withdraw(Principal("alice"), RecordName.parse(record.name), "")

    started = world.start()
    if when == "while it runs":
        world.objects.gate.clear()
        process.step()
        assert world.objects.reached.wait(LONGEST_S)
        withdraw()
        world.operations.cancel(OWNER, started.name)
        process.step()
        world.objects.gate.set()
    else:
        process.die_in_write(started)
        assert any(b"lists processes" in each.read_bytes() for each in process.files())
        withdraw()
    eventually(lambda: not process.files())


def test_a_datanet_whose_records_are_gone_when_it_is_sealed_fails_the_operation(world: World) -> None:
    process = Process(world)
    review = Review(world.database, process.work)
    started = world.start()
    (record,) = review.list(OWNER, NAME, Query()).items
    review.withdraw(Principal("alice"), RecordName.parse(record.name), "")
    failed = process.until(started.name, OperationState.FAILED)
    assert from_status(Status.FromString(failed.error)).reason == "DATANET_EMPTY"
