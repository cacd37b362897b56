"""Nothing that a service needs is ever collected, and in the end everything else is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from servicekit.crash import EXIT_CODE
from servicekit.database import engine, new_metadata, reading, transaction, utc_now
from servicekit.errors import CorruptObject, StartupError
from servicekit.objects import ObjectStore, name_of
from servicekit.objects._area import Area
from servicekit.objects._bucket import Bucket
from servicekit.objects._folder import Folder
from servicekit.objects.collection import SHORTEST_GRACE, Collected, collect
from servicekit.objects.references import ReferencePublisher, forget, pin, read_all
from servicekit.testing.s3 import S3Server
from servicekit.testing.waiting import eventually

pytestmark = pytest.mark.slow

LATER = timedelta(days=3)


class Base(DeclarativeBase):
    metadata = new_metadata()


class Thing(Base):
    __tablename__ = "things"
    digest: Mapped[str] = mapped_column(primary_key=True)


def references(session: Session) -> list[str]:
    return list(session.scalars(select(Thing.digest)))


class World:
    """A store that services share; each has a database, and publishes in the future, so that all that is put is old by then."""

    def __init__(self, store: ObjectStore, folder: Path, stack: ExitStack) -> None:
        self.store = store
        self._folder = folder
        self._stack = stack
        self.engines: dict[str, Engine] = {}

    def needs(self, service: str, *digests: str, database: str = "one") -> ReferencePublisher:
        """Lets a service refer to objects, and publish that."""
        file = self._folder / f"{service}-{database}.db"
        made = engine(f"sqlite:///{file}")
        self._stack.callback(made.dispose)
        Base.metadata.create_all(made)
        with transaction(made) as session:
            session.add_all(Thing(digest=digest) for digest in digests)
        publisher = ReferencePublisher(self.store, service, made, references, now=in_the_future)
        publisher.publish()
        return publisher

    def collect(self, *services: str, dry_run: bool = False) -> Collected:
        return collect(self.store, services, SHORTEST_GRACE, dry_run)


def in_the_future() -> datetime:
    return utc_now() + LATER


@pytest.fixture
def world(store_url: str, tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(ObjectStore(store_url, cache=tmp_path / "cache"), tmp_path, stack)


def test_what_no_service_needs_goes_and_what_any_needs_stays(world: World) -> None:
    mine, yours, nobodys = (world.store.put_bytes(text) for text in (b"mine", b"yours", b"nobody's"))
    world.needs("alpha", mine)
    world.needs("beta", yours)
    planned = world.collect("alpha", "beta", dry_run=True)
    assert [entry.name for entry in planned.garbage] == [name_of(nobodys)]
    assert world.store.exists(nobodys)
    assert world.collect("alpha", "beta").removed == {name_of(nobodys)}
    assert [world.store.exists(digest) for digest in (mine, yours, nobodys)] == [True, True, False]
    assert world.collect("alpha", "beta").garbage == ()


def test_what_a_needed_object_names_is_needed_and_what_that_names_too(world: World) -> None:
    put = world.store.put_bytes
    weights, lost = put(os.urandom(100)), put(b"\x93NUMPY" + os.urandom(100))
    inner = put(json.dumps({"files": {"weights": weights}}).encode())
    padding = "x" * (2 << 20)  # the name is beyond what is read at once
    outer = put(
        json.dumps([{"padding": padding, "manifest": inner, "synthetic": "sha256:" + "0" * 64}]).encode()
    )
    world.needs("alpha", outer)
    assert world.collect("alpha").removed == {name_of(lost)}
    assert all(world.store.exists(digest) for digest in (outer, inner, weights))


def test_a_digest_in_an_unneeded_object_keeps_nothing(world: World) -> None:
    part = world.store.put_bytes(b"part")
    whole = world.store.put_bytes(json.dumps({"part": part}).encode())
    world.needs("alpha")
    assert world.collect("alpha").removed == {name_of(part), name_of(whole)}


def test_nothing_is_collected_before_every_service_has_said_what_it_needs(world: World) -> None:
    nobodys = world.store.put_bytes(b"nobody's")
    world.needs("alpha")
    with pytest.raises(StartupError, match="beta, gamma never published"):
        world.collect("alpha", "beta", "gamma")
    assert world.store.exists(nobodys)


def test_a_service_that_is_down_loses_nothing_that_came_after_its_last_list(world: World) -> None:
    """Its job continued without it, and left a result that no database names yet."""
    world.needs("alpha")
    down = world.needs("beta")
    ReferencePublisher(world.store, "beta", down._engine, references, now=lambda: utc_now() - LATER).publish()
    result = world.store.put_bytes(b"a result that waits")
    found = world.collect("alpha", "beta")
    assert (found.garbage, [entry.name for entry in found.young]) == ((), [name_of(result)])
    assert world.store.exists(result)


def test_two_deployments_on_one_store_keep_what_each_needs(world: World) -> None:
    one, other = world.store.put_bytes(b"one's"), world.store.put_bytes(b"the other's")
    world.needs("alpha", one)
    world.needs("alpha", other, database="other")
    assert len({published.name for published in read_all(world.store)}) == 2
    assert world.collect("alpha").garbage == ()


def test_a_pinned_object_stays_until_it_is_forgotten(world: World) -> None:
    digest = world.store.put_bytes(b"for later")
    world.needs("alpha")
    pin(world.store, "pin-later", [digest])
    assert world.collect("alpha").garbage == ()
    assert forget(world.store, "pin-later")
    assert not forget(world.store, "pin-later")
    assert world.collect("alpha").removed == {name_of(digest)}


def test_a_needed_object_that_is_missing_is_reported(world: World) -> None:
    world.needs("alpha", "sha256:" + "a" * 64, "")
    assert world.collect("alpha").missing == ("sha256:" + "a" * 64,)


def test_a_damaged_manifest_or_list_stops_the_collection(world: World) -> None:
    part = world.store.put_bytes(b"part")
    whole = world.store.put_bytes(json.dumps({"part": part}).encode())
    world.needs("alpha", whole)
    world.store.area.remove(name_of(whole))
    world.store.area.write(name_of(whole), b'{"part": "gone"}')
    with pytest.raises(CorruptObject):
        world.collect("alpha")
    world.store.area.write(
        "references/alpha-broken", b'{"format": "openledger.references/1", "time": null, "count": 3}\n'
    )
    with pytest.raises(StartupError, match="alpha-broken"):
        world.collect("alpha")
    assert world.store.exists(part)


def test_a_grace_shorter_than_a_reference_may_take_is_refused(world: World) -> None:
    with pytest.raises(StartupError, match="at least 2 h"):
        collect(world.store, [], timedelta(minutes=119))


def test_when_a_list_was_published_is_a_metric(world: World) -> None:
    name = "openledger_object_references_published_timestamp_seconds"
    publisher = world.needs("gamma")
    published = publisher.publish()
    assert published.time is not None
    assert REGISTRY.get_sample_value(name, {"service": "gamma"}) == published.time.timestamp()


def test_a_database_has_one_identity_when_several_processes_ask_first(
    tmp_path: Path, database_url: str
) -> None:
    made = engine(database_url)
    Base.metadata.create_all(made)
    publishers = [
        ReferencePublisher(ObjectStore(tmp_path / str(n)), "alpha", made, references) for n in range(4)
    ]
    with ThreadPoolExecutor(4) as pool:
        names = {published.name for published in pool.map(ReferencePublisher.publish, publishers)}
    assert len(names) == 1
    with reading(made) as session:
        assert references(session) == []
    made.dispose()


def test_a_second_put_makes_an_old_object_young_again(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path / "objects")
    again, not_again = store.put_bytes(b"again"), store.put_bytes(b"not again")
    age(tmp_path / "objects", again, not_again)
    store.put_bytes(b"again")
    removed = store.area.remove_older([name_of(again), name_of(not_again)], utc_now() - SHORTEST_GRACE)
    assert removed == [name_of(not_again)]
    assert store.get_bytes(again) == b"again"


def age(folder: Path, *digests: str) -> None:
    old_s = time.time() - LATER.total_seconds()
    for digest in digests:
        os.utime(folder / name_of(digest), (old_s, old_s))


PUT = """
import sys
from servicekit.objects import ObjectStore
store = ObjectStore(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for number in range(200):
    store.put_bytes(b"%d" % number)
"""


def test_what_one_process_puts_while_another_sweeps_is_there(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    digests = [store.put_bytes(b"%d" % number) for number in range(200)]
    garbage = store.put_bytes(b"garbage")
    age(tmp_path, garbage, *digests)
    with subprocess.Popen(
        [sys.executable, "-c", PUT, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as putter:
        assert putter.stdin is not None
        assert putter.stdout is not None
        assert putter.stdout.readline() == "ready\n"
        putter.stdin.write("go\n")
        putter.stdin.flush()
        # From the end, so that they meet: what is swept before it is put, and after.
        swept = [name_of(digest) for digest in (garbage, *reversed(digests))]
        removed = store.area.remove_older(swept, utc_now() - SHORTEST_GRACE)
        assert putter.wait() == 0
    assert name_of(garbage) in removed
    assert [store.get_bytes(digest) for digest in digests] == [b"%d" % number for number in range(200)]


@pytest.mark.server
def test_what_one_puts_while_another_sweeps_a_bucket_is_there(s3: S3Server, tmp_path: Path) -> None:
    url = s3.new_bucket()
    digests = {number: ObjectStore(url, cache=tmp_path).put_bytes(b"%d" % number) for number in range(16)}
    garbage = ObjectStore(url, cache=tmp_path).put_bytes(b"garbage")
    # S3 reports whole seconds: objects that are put from the next second on are younger than the existing ones.
    than = datetime.fromtimestamp(int(time.time()) + 1, UTC)
    eventually(lambda: utc_now() >= than, "the next second")
    sweeper, putter, folder = Bucket(url), Bucket(url, fresh=timedelta()), Folder(tmp_path / "again")

    def put_again() -> None:
        for number, digest in digests.items():
            with folder.temporary() as (path, file):
                file.write(b"%d" % number)
                folder.finish(file)
                putter.put(path, name_of(digest))

    with ThreadPoolExecutor(1) as pool:
        putting = pool.submit(put_again)
        swept = [name_of(digest) for digest in (garbage, *reversed(digests.values()))]
        removed = sweeper.remove_older(swept, than)
        putting.result()
    assert name_of(garbage) in removed
    store = ObjectStore(url, cache=tmp_path / "other")
    assert [store.get_bytes(digest) for digest in digests.values()] == [
        b"%d" % number for number in range(16)
    ]


def test_a_sweep_that_died_blocks_no_put(store_url: str, tmp_path: Path) -> None:
    store = ObjectStore(store_url, cache=tmp_path / "cache")
    area: Area = store.area
    name = name_of("sha256:" + "a" * 64)
    past = (utc_now() - timedelta(minutes=5)).isoformat()
    area.write("sweeping/of-the-dead", json.dumps({"end": past, "names": [name]}).encode())
    source = tmp_path / "source"
    source.write_bytes(b"some bytes")
    area.put(source, name)
    assert area.put_time(name) is not None
    if isinstance(area, Bucket):
        assert area.remove_leftovers(utc_now() + timedelta(hours=1)) == 1
        assert list(area.entries("sweeping")) == []


COLLECT = """
import sys
from servicekit.objects.collection import SHORTEST_GRACE, collect
from servicekit.objects import ObjectStore
collect(ObjectStore(sys.argv[1]), [], SHORTEST_GRACE)
"""


def test_a_collection_killed_on_the_way_is_finished_by_the_next(tmp_path: Path) -> None:
    with ExitStack() as stack:
        world = World(ObjectStore(tmp_path / "objects"), tmp_path, stack)
        needed, *garbage = [world.store.put_bytes(b"%d" % number) for number in range(8)]
        world.needs("alpha", needed)
        died = subprocess.run(
            [sys.executable, "-c", COLLECT, str(tmp_path / "objects")],
            env={
                **os.environ,
                "OPENLEDGER_CRASH_AT": "servicekit.objects.collection:collect before remove#4",
            },
            check=False,
        )
        assert died.returncode == EXIT_CODE
        assert sum(map(world.store.exists, garbage)) == 4
        assert len(world.collect("alpha").removed) == 4
        assert [world.store.exists(digest) for digest in (needed, *garbage)] == [True] + [False] * 7


WRITE = """
import sys
from pathlib import Path
from servicekit.objects import ObjectStore
ObjectStore(sys.argv[1]).put_file(Path(sys.argv[2]))
"""


def test_half_an_object_is_nowhere_and_goes_with_its_writer(tmp_path: Path) -> None:
    source, folder = tmp_path / "source", tmp_path / "objects"
    store = ObjectStore(folder)
    os.mkfifo(source)
    writer = subprocess.Popen([sys.executable, "-c", WRITE, str(folder), str(source)])
    with source.open("wb") as pipe:  # opens once the writer reads
        pipe.write(bytes(2 << 20))
        pipe.flush()
        (half,) = folder.glob(".new-*")
        os.utime(half, (0, 0))
        ObjectStore(folder)
        assert half.exists()  # its writer is running
        assert list(store.area.entries("sha256")) == []
        writer.kill()
        writer.wait()
    os.utime(half, (0, 0))
    ObjectStore(folder)
    assert not half.exists()
