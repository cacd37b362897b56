"""The registry of services: the one place that names them.

No other string of the CLI, the operators' tools or the client names a service's module. A module that needs a service imports its
constant; a module that needs all of them iterates over `ALL`.

A new service is one constant here and its place in `ALL`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import grpc
    from openledger.attribution.v1.attribution_pb2_grpc import AttributionServiceStub
    from openledger.datanet.v1.datanet_pb2_grpc import DatanetServiceStub
    from openledger.inference.v1.inference_pb2_grpc import InferenceServiceStub
    from openledger.settlement.v1.settlement_pb2_grpc import SettlementServiceStub
    from openledger.trainer.v1.trainer_pb2_grpc import TrainerServiceStub

Stub_co = TypeVar("Stub_co", covariant=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class Service(Generic[Stub_co]):
    """A service of the platform. Each is a constant: two are the same if they are one object."""

    name: str
    """In address files, in settings (`OPENLEDGER_<NAME>_...`), in logs and in the metric `service`."""
    module: str
    """`python -m <module>` starts it."""
    api: str
    """Full name of its gRPC service."""
    stub: Callable[[grpc.Channel], Stub_co]
    """Makes the stub of `api` over a channel. Imports the generated code when it is first called."""
    http: str = ""
    """Name of its HTTP API, which it serves in addition to gRPC; "" for none."""
    programs: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Other programs in the same package, by what they are for; `python -m <program>` runs one."""

    def variable(self, setting: str) -> str:
        """Returns the environment variable of one of its settings: `variable("grpc_port")`."""
        return f"OPENLEDGER_{self.name}_{setting}".upper()

    def __str__(self) -> str:
        return self.name


def _datanet(channel: grpc.Channel) -> DatanetServiceStub:
    from openledger.datanet.v1.datanet_pb2_grpc import DatanetServiceStub

    return DatanetServiceStub(channel)


def _trainer(channel: grpc.Channel) -> TrainerServiceStub:
    from openledger.trainer.v1.trainer_pb2_grpc import TrainerServiceStub

    return TrainerServiceStub(channel)


def _inference(channel: grpc.Channel) -> InferenceServiceStub:
    from openledger.inference.v1.inference_pb2_grpc import InferenceServiceStub

    return InferenceServiceStub(channel)


def _attribution(channel: grpc.Channel) -> AttributionServiceStub:
    from openledger.attribution.v1.attribution_pb2_grpc import AttributionServiceStub

    return AttributionServiceStub(channel)


def _settlement(channel: grpc.Channel) -> SettlementServiceStub:
    from openledger.settlement.v1.settlement_pb2_grpc import SettlementServiceStub

    return SettlementServiceStub(channel)


DATANET = Service(
    name="datanet",
    module="datanet",
    api="openledger.datanet.v1.DatanetService",
    stub=_datanet,
)
TRAINER = Service(
    name="trainer",
    module="trainer",
    api="openledger.trainer.v1.TrainerService",
    stub=_trainer,
    programs={
        "ray head": "finetune.ray_head",
        "base models": "finetune.import_base_model",
        "base model folders": "finetune.import_folder",
        "evaluation items": "finetune.export_items",
    },
)
INFERENCE = Service(
    name="inference",
    module="inference",
    api="openledger.inference.v1.InferenceService",
    stub=_inference,
    http="openai",
)
ATTRIBUTION = Service(
    name="attribution",
    module="attribution",
    api="openledger.attribution.v1.AttributionService",
    stub=_attribution,
)
CHAIN_RELAY = Service(
    name="chain_relay",
    module="chain_relay",
    api="openledger.settlement.v1.SettlementService",
    stub=_settlement,
)

ALL: tuple[Service[object], ...] = (DATANET, TRAINER, INFERENCE, ATTRIBUTION, CHAIN_RELAY)
"""Every service. The order is that of their ports under `openledger up`."""


def resolve(service: Service[object] | str) -> Service[object]:
    """Returns a service given by its constant or its name. Raises TypeError for anything else."""
    if isinstance(service, Service):
        return service
    if isinstance(service, str):
        with suppress(KeyError):
            return by_name(service)
    names = ", ".join(str(each) for each in ALL)
    raise TypeError(
        f"{service!r} is not a service: pass a constant of openledger_client.services or a name of {names}"
    )


def by_name(name: str) -> Service[object]:
    """Returns the service of that name. Raises KeyError for an unknown name."""
    for service in ALL:
        if service.name == name:
            return service
    raise KeyError(f"{name!r} is not a service; the services are {', '.join(str(each) for each in ALL)}")
