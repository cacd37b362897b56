"""Channels to the services: addresses, tokens, stubs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
import typer
from openledger.attribution.v1.attribution_pb2_grpc import AttributionServiceStub
from openledger.datanet.v1.datanet_pb2_grpc import DatanetServiceStub
from openledger.inference.v1.inference_pb2_grpc import InferenceServiceStub
from openledger.settlement.v1.settlement_pb2_grpc import SettlementServiceStub
from openledger.trainer.v1.trainer_pb2_grpc import TrainerServiceStub

from servicekit.auth import DevelopmentIssuer
from servicekit.client import Tls, sync_channel
from servicekit.errors import StartupError

SERVICES = ("datanet", "trainer", "inference", "attribution", "chain_relay")
Stub = TypeVar("Stub")


def parse_identity(text: str) -> tuple[str, tuple[str, ...]]:
    """`alice:curator,builder` -> ("alice", ("curator", "builder"))."""
    principal, _, roles = text.partition(":")
    if not principal or not roles:
        raise typer.BadParameter(f"{text!r} is not NAME:ROLE[,ROLE], e.g. alice:curator")
    return principal, tuple(role for role in roles.split(",") if role)


def address_file(state_dir: Path, service: str) -> Path:
    """Where a running service on this machine says its addresses."""
    return state_dir / "run" / f"{service}.json"


def tls_of_environment() -> Tls | None:
    """Whom to trust (`OPENLEDGER_TLS_CA`) and, for mTLS, who one is (`OPENLEDGER_TLS_CERT`, `OPENLEDGER_TLS_KEY`); without
    the first, plain text."""
    ca, cert, key = (os.environ.get(f"OPENLEDGER_TLS_{name}") for name in ("CA", "CERT", "KEY"))
    if not ca:
        return None
    return Tls(Path(ca), Path(cert) if cert else None, Path(key) if key else None)


@dataclass
class Connections:
    """Stubs of the services for one caller. Channels are opened once and shared.

    An address is `OPENLEDGER_<SERVICE>_ADDRESS`, else what the service wrote into `state_dir`. TLS by `tls_of_environment`.
    """

    state_dir: Path
    token: str = ""
    principal: str = "admin"
    roles: tuple[str, ...] = ("admin",)
    deadline_s: float = 60.0
    _channels: dict[str, grpc.Channel] = field(default_factory=dict)

    def bearer(self) -> str:
        """The token that calls carry."""
        if not self.token:
            issuer = DevelopmentIssuer(self.state_dir)
            if not (self.state_dir / "issuer" / "private.pem").exists():
                raise StartupError(
                    f"no token: give --token or OPENLEDGER_TOKEN, or start `openledger up`"
                    f" ({self.state_dir} has no development issuer)"
                )
            self.token = issuer.mint(self.principal, self.roles)
        return self.token

    def addresses(self, service: str) -> dict[str, Any]:
        """What the service wrote at its start: `grpc`, `metrics`, `http`.

        Raises:
            StartupError: when it is not running here and no address is given.
        """
        given = os.environ.get(f"OPENLEDGER_{service.upper()}_ADDRESS")
        path = address_file(self.state_dir, service)
        if given:
            return {"grpc": given}
        try:
            found: dict[str, Any] = json.loads(path.read_text())
        except (OSError, ValueError):
            raise StartupError(
                f"{service} is not running here (no {path}): start `openledger up`,"
                f" or set OPENLEDGER_{service.upper()}_ADDRESS=host:port"
            ) from None
        return found

    def channel(self, service: str) -> grpc.Channel:
        """The channel to a service."""
        if service not in self._channels:
            address = str(self.addresses(service)["grpc"])
            self._channels[service] = sync_channel(address, self.bearer(), tls_of_environment())
        return self._channels[service]

    def _stub(self, make: Callable[[grpc.Channel], Stub], service: str) -> Stub:
        return make(self.channel(service))

    @property
    def datanet(self) -> DatanetServiceStub:
        """Stub of the datanet service."""
        return self._stub(DatanetServiceStub, "datanet")

    @property
    def trainer(self) -> TrainerServiceStub:
        """Stub of the trainer."""
        return self._stub(TrainerServiceStub, "trainer")

    @property
    def inference(self) -> InferenceServiceStub:
        """Stub of the inference service."""
        return self._stub(InferenceServiceStub, "inference")

    @property
    def attribution(self) -> AttributionServiceStub:
        """Stub of the attribution service."""
        return self._stub(AttributionServiceStub, "attribution")

    @property
    def settlement(self) -> SettlementServiceStub:
        """Stub of the chain relay."""
        return self._stub(SettlementServiceStub, "chain_relay")

    def close(self) -> None:
        """Closes all channels."""
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()
