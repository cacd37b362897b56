"""The entry points: one object that reaches every service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from openledger_client.addresses import Addresses
from openledger_client.auth import Token, token_from_environment
from openledger_client.calls import AsyncCalls, Calls, Policy
from openledger_client.channels import channel, sync_channel
from openledger_client.errors import OpenLedgerError
from openledger_client.services import (
    ATTRIBUTION,
    CHAIN_RELAY,
    DATANET,
    INFERENCE,
    TRAINER,
    Service,
    by_name,
    resolve,
)
from openledger_client.tls import Tls

if TYPE_CHECKING:
    from openledger.attribution.v1.attribution_pb2_grpc import (
        AttributionServiceAsyncStub,
        AttributionServiceStub,
    )
    from openledger.audit.v1.audit_pb2_grpc import AuditServiceAsyncStub, AuditServiceStub
    from openledger.datanet.v1.datanet_pb2_grpc import DatanetServiceAsyncStub, DatanetServiceStub
    from openledger.inference.v1.inference_pb2_grpc import InferenceServiceAsyncStub, InferenceServiceStub
    from openledger.settlement.v1.settlement_pb2_grpc import SettlementServiceAsyncStub, SettlementServiceStub
    from openledger.trainer.v1.trainer_pb2_grpc import TrainerServiceAsyncStub, TrainerServiceStub

_Stub = TypeVar("_Stub")
_SERVING = health_pb2.HealthCheckResponse.SERVING


def _peer(service: Service[object], address: str) -> dict[str, str]:
    return {"service": service.name, "address": address, "variable": service.variable("address")}


class _Base:
    """What the client and the asyncio client share."""

    def __init__(
        self,
        addresses: Addresses | None = None,
        *,
        token: Token = None,
        tls: Tls | None = None,
        policy: Policy | None = None,
    ) -> None:
        """Opens nothing yet; a channel opens with the first call to its service.

        Args:
            addresses: where services listen; by default as `Addresses.from_environment` says.
            token: bearer token of every call, or a function that returns the current one.
            tls: certificates of encrypted channels; None means plain text.
            policy: deadlines and retries.
        """
        self.addresses = addresses or Addresses.from_environment()
        self.policy = policy or Policy()
        self._token = token
        self._tls = tls

    @classmethod
    def from_environment(
        cls, state_dir: Path | None = None, *, token: Token = None, policy: Policy | None = None
    ) -> Self:
        """Returns a client with addresses, token and TLS of the environment (docs/client.md lists the variables)."""
        return cls(
            Addresses.from_environment(state_dir),
            token=token or token_from_environment(),
            tls=Tls.from_environment(),
            policy=policy,
        )

    if not TYPE_CHECKING:  # type checkers see the typed attributes only, and still find a mistyped name

        def __getattr__(self, name: str) -> Any:
            """Returns the stub of the service of that name in the registry, for services that have no typed attribute."""
            try:
                return self.stub(by_name(name))
            except KeyError as error:
                raise AttributeError(
                    f"{type(self).__name__} has no attribute {name!r}: {error.args[0]}"
                ) from None


class Client(_Base):
    """Typed stubs of every service for synchronous code. Safe for many threads. Close it, or use it in `with`.

    Calls raise `OpenLedgerError`. They have a deadline and are retried as `policy` says.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._open: dict[str, Calls] = {}

    def channel(self, service: Service[object] | str) -> grpc.Channel:
        """Returns the channel to a service, for stubs that this class does not name."""
        service = resolve(service)
        if service.name not in self._open:
            address = self.addresses.of(service).grpc
            self._open[service.name] = Calls(
                sync_channel(address, self._token, self._tls), self.policy, _peer(service, address)
            )
        return cast("grpc.Channel", self._open[service.name])

    def stub(self, service: Service[_Stub]) -> _Stub:
        """Returns the stub of a service: `stub(DATANET)` is `datanet`. It is typed for every constant of the registry."""
        return service.stub(self.channel(service))

    @property
    def datanet(self) -> DatanetServiceStub:
        """Datanets, contributors, records, snapshots."""
        return self.stub(DATANET)

    @property
    def trainer(self) -> TrainerServiceStub:
        """Training runs, model versions, evaluations, promotions."""
        return self.stub(TRAINER)

    @property
    def inference(self) -> InferenceServiceStub:
        """Answers of served models."""
        return self.stub(INFERENCE)

    @property
    def attribution(self) -> AttributionServiceStub:
        """Contributors' shares of answers."""
        return self.stub(ATTRIBUTION)

    @property
    def settlement(self) -> SettlementServiceStub:
        """Batches, proofs, balances, rewards."""
        return self.stub(CHAIN_RELAY)

    def audit(self, service: Service[object] | str) -> AuditServiceStub:
        """Returns the audit API of one service, given by its constant or its name."""
        from openledger.audit.v1.audit_pb2_grpc import AuditServiceStub

        return AuditServiceStub(self.channel(service))

    def is_serving(self, service: Service[object] | str, timeout_s: float = 1.0) -> bool:
        """Returns whether a service, given by its constant or its name, is found and reports that it is ready."""
        try:
            stub = health_pb2_grpc.HealthStub(self.channel(service))
            return bool(stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s).status == _SERVING)
        except OpenLedgerError:
            return False

    def close(self) -> None:
        """Closes all channels. A later call opens new ones, at the addresses of that time."""
        while self._open:
            self._open.popitem()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


class AsyncClient(_Base):
    """Typed stubs of every service for asyncio. Use it within one event loop; close it, or use it in `async with`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._open: dict[str, AsyncCalls] = {}

    def channel(self, service: Service[object] | str) -> grpc.aio.Channel:
        """Returns the channel to a service, for stubs that this class does not name."""
        service = resolve(service)
        if service.name not in self._open:
            address = self.addresses.of(service).grpc
            self._open[service.name] = AsyncCalls(
                channel(address, self._token, self._tls), self.policy, _peer(service, address)
            )
        return cast("grpc.aio.Channel", self._open[service.name])

    def stub(self, service: Service[object]) -> Any:
        """Returns the stub of a service: `stub(DATANET)` is `datanet`."""
        return service.stub(cast("grpc.Channel", self.channel(service)))  # generated stubs take both kinds

    @property
    def datanet(self) -> DatanetServiceAsyncStub:
        """Datanets, contributors, records, snapshots."""
        return cast("DatanetServiceAsyncStub", self.stub(DATANET))

    @property
    def trainer(self) -> TrainerServiceAsyncStub:
        """Training runs, model versions, evaluations, promotions."""
        return cast("TrainerServiceAsyncStub", self.stub(TRAINER))

    @property
    def inference(self) -> InferenceServiceAsyncStub:
        """Answers of served models."""
        return cast("InferenceServiceAsyncStub", self.stub(INFERENCE))

    @property
    def attribution(self) -> AttributionServiceAsyncStub:
        """Contributors' shares of answers."""
        return cast("AttributionServiceAsyncStub", self.stub(ATTRIBUTION))

    @property
    def settlement(self) -> SettlementServiceAsyncStub:
        """Batches, proofs, balances, rewards."""
        return cast("SettlementServiceAsyncStub", self.stub(CHAIN_RELAY))

    def audit(self, service: Service[object] | str) -> AuditServiceAsyncStub:
        """Returns the audit API of one service, given by its constant or its name."""
        from openledger.audit.v1.audit_pb2_grpc import AuditServiceStub

        return AuditServiceStub(self.channel(service))

    async def is_serving(self, service: Service[object] | str, timeout_s: float = 1.0) -> bool:
        """Returns whether a service, given by its constant or its name, is found and reports that it is ready."""
        try:
            stub: Any = health_pb2_grpc.HealthStub(self.channel(service))
            found = await stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except OpenLedgerError:
            return False
        return bool(found.status == _SERVING)

    async def close(self) -> None:
        """Closes all channels."""
        while self._open:
            await self._open.popitem()[1].close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.close()
