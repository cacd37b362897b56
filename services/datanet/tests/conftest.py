"""What the tests of this service share: a Datanet, a record's bytes, and a real service on either database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from openledger.datanet.v1 import datanet_pb2 as pb
from openledger.datanet.v1.datanet_pb2_grpc import DatanetServiceStub

from datanet.definition import Datanet, Field, QualityPolicy, RecordSchema
from datanet.payout import checksum
from datanet.service import build
from datanet.settings import DatanetSettings
from openledger_client import sealing
from openledger_client.channels import sync_channel
from openledger_client.errors import OpenLedgerError, from_rpc_error
from servicekit.objects import ObjectStore
from servicekit.server import Service
from servicekit.testing.services import DATABASE_KINDS, Databases, running, token

TACTICS = ("discovery", "execution", "persistence")
LICENCE = "CC-BY-4.0"
PAYOUT = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"


def payout(name: str) -> str:
    """An address of a contributor's own; alice's has a known checksum."""
    return PAYOUT if name == "alice" else checksum("0x" + sha256(name.encode()).hexdigest()[:40])


SCHEMA = RecordSchema(
    fields=(
        Field(name="text", required=True, max_length=4000),
        Field(name="tactic", required=True, allowed_values=TACTICS),
        Field(name="source", max_length=200),
    ),
    prompt_template="Report: {text}\nTactic:",
    completion_template=" {tactic}",
)


@pytest.fixture(scope="session")
def datanet() -> Datanet:
    """A Datanet of labelled texts."""
    return Datanet(
        name="datanets/threat-intel",
        owner="owner",
        licence=LICENCE,
        schema=SCHEMA,
        policy=QualityPolicy(contamination_check=False),
    )


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """A record's bytes; the label is `discovery` unless said otherwise."""

    def record(text: str, tactic: str = "discovery", **more: object) -> bytes:
        return json.dumps({"text": text, "tactic": tactic, **more}).encode()

    return record


class World:
    """A running service, and its clients."""

    def __init__(self, service: Service) -> None:
        self.service = service
        assert service.address is not None
        self._address = service.address.grpc
        self._channels: list[grpc.Channel] = []

    def client(self, principal: str, *roles: str) -> Any:
        """A stub of the API for a principal with roles."""
        channel = sync_channel(self._address, token(self.service, roles, principal))
        self._channels.append(channel)
        return DatanetServiceStub(channel)

    def anonymous(self) -> Any:
        """A stub without a token."""
        channel = sync_channel(self._address)
        self._channels.append(channel)
        return DatanetServiceStub(channel)

    def close(self) -> None:
        """Closes what was opened."""
        for channel in self._channels:
            channel.close()


class Net:
    """One Datanet in a world, its owner, and two contributors."""

    def __init__(self, world: World, policy: pb.QualityPolicy | None = None, id_: str = "") -> None:
        self.world = world
        self.id = id_ or f"net-{uuid4().hex[:12]}"
        self.name = f"datanets/{self.id}"
        self.owner = world.client(f"{self.id}-owner", "curator")
        self.definition = definition(policy)
        self.made = self.owner.CreateDatanet(
            pb.CreateDatanetRequest(datanet_id=self.id, datanet=self.definition, request_id="create")
        )
        if id_:  # an earlier service on the same state folder registered them
            self.alice, self.bob = f"{self.name}/contributors/alice", f"{self.name}/contributors/bob"
        else:
            self.alice, self.bob = self.register("alice"), self.register("bob")

    def register(self, contributor: str) -> str:
        """Registers a contributor whose principal is `<datanet>-<contributor>`; returns its resource name."""
        request = pb.RegisterContributorRequest(
            parent=self.name, contributor_id=contributor, contributor=self.contributor(contributor)
        )
        return str(self.owner.RegisterContributor(request).name)

    def contributor(self, name: str) -> pb.Contributor:
        """A contributor's content."""
        return pb.Contributor(
            principal=f"{self.id}-{name}",
            display_name=name,
            payout_address=payout(name),
            consent_licence=LICENCE,
        )

    def client(self, contributor: str) -> Any:
        """A stub for a registered contributor."""
        return self.world.client(f"{self.id}-{contributor.rsplit('/', 1)[-1]}", "contributor")

    def contribute(self, contributor: str, records: Iterable[bytes]) -> list[pb.ContributeResponse]:
        """Streams records as their contributor."""
        requests = (
            pb.ContributeRequest(contributor=contributor, sequence=number, content=content)
            for number, content in enumerate(records)
        )
        return list(self.client(contributor).Contribute(requests))

    def seal(self, **more: Any) -> pb.Snapshot:
        """Seals as the owner."""
        return sealing.seal(self.owner, pb.SealSnapshotRequest(parent=self.name, **more))


def unchecked(policy: pb.QualityPolicy | None) -> pb.QualityPolicy:
    """A policy that checks for evaluation items only where it names them: these services have none."""
    made = pb.QualityPolicy()
    made.CopyFrom(policy or made)
    if not made.gate_items_digest and not made.contamination_check:
        made.contamination_check = pb.CONTAMINATION_CHECK_OFF
    return made


def definition(policy: pb.QualityPolicy | None = None) -> pb.Datanet:
    """The content of a Datanet of labelled texts."""
    return pb.Datanet(
        display_name="Threat intelligence",
        licence=LICENCE,
        schema=pb.RecordSchema(
            fields=[
                pb.RecordSchema.Field(name="text", required=True, max_length=4000),
                pb.RecordSchema.Field(name="tactic", required=True, allowed_values=TACTICS),
                pb.RecordSchema.Field(name="source"),
            ],
            prompt_template="Report: {text}\nTactic:",
            completion_template=" {tactic}",
        ),
        policy=unchecked(policy),
    )


@pytest.fixture(scope="session", params=DATABASE_KINDS)
def shared_database_url(request: pytest.FixtureRequest, databases: Databases) -> Iterator[str]:
    """A database of each kind: every test makes a Datanet of its own in it."""
    with databases.empty(request.param) as url:
        yield url


@pytest.fixture(scope="session")
def world(shared_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A running service; every test makes a Datanet of its own in it."""
    made = started(tmp_path_factory.mktemp("state"), shared_database_url)
    with running(made) as service:
        world = World(service)
        yield world
        world.close()


def started(state_dir: Path, database_url: str = "", gate_items_digest: str = "") -> Service:
    """A service with development tokens, built and not yet run."""
    return build(
        DatanetSettings(
            state_dir=state_dir,
            database_url=database_url,
            gate_items_digest=gate_items_digest,
            auth_mode="development",
            grace_s=1,
            log_format="text",
        )
    )


@pytest.fixture
def net(world: World) -> Net:
    """A fresh Datanet."""
    return Net(world)


@pytest.fixture
def make_net(world: World) -> Callable[[pb.QualityPolicy], Net]:
    """Makes a fresh Datanet with a policy."""
    return lambda policy: Net(world, policy)


@pytest.fixture
def gated_world(tmp_path: Path) -> Iterator[World]:
    """A service of its own whose setting names evaluation items: one, of 20 words."""
    item = json.dumps({"suite": "hellaswag", "id": "1", "text": " ".join(f"word{n}" for n in range(20))})
    digest = ObjectStore(str(tmp_path / "objects")).put_bytes(item.encode())
    with running(started(tmp_path, gate_items_digest=digest)) as service:
        world = World(service)
        yield world
        world.close()


@pytest.fixture
def own_net(tmp_path: Path) -> Iterator[Net]:
    """A Datanet in a service of its own, on SQLite, whose state folder is `tmp_path`."""
    with running(started(tmp_path)) as service:
        world = World(service)
        yield Net(world)
        world.close()


@pytest.fixture
def serve(tmp_path: Path) -> Callable[[], AbstractContextManager[Net]]:
    """Starts a service on `tmp_path`, with one Datanet, which is there again when it is started again."""
    names: list[str] = []

    @contextmanager
    def serving() -> Iterator[Net]:
        with running(started(tmp_path)) as service:
            world = World(service)
            net = Net(world, id_=names[0] if names else "")
            names.append(net.id)
            yield net
            world.close()

    return serving


@pytest.fixture
def refusal() -> Callable[..., OpenLedgerError]:
    """The error that a call is refused with."""

    def run(call: Callable[..., Any], request: Any) -> None:
        answer = call(request)
        if isinstance(answer, grpc.Call):
            list(answer)

    def refused(call: Callable[..., Any], request: Any) -> OpenLedgerError:
        with pytest.raises(grpc.RpcError) as raised:
            run(call, request)
        return from_rpc_error(raised.value)

    return refused
