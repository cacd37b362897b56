"""Looks at everything there is to look at, at once, and gathers what was found."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import grpc
from openledger.inference.v1 import inference_pb2
from openledger.settlement.v1 import settlement_pb2
from openledger.trainer.v1 import trainer_pb2

from openledger_cli.connection import SERVICES, Connections
from openledger_cli.dead_letters import waiting_letters
from openledger_cli.doctor import platform_checks
from openledger_cli.doctor.finding import Finding
from openledger_cli.doctor.service_checks import service_findings
from openledger_cli.doctor.view import ServiceView, look
from servicekit.errors import StartupError, from_rpc_error

T = TypeVar("T")


@dataclass(frozen=True)
class Examination:
    """Of one platform, by one caller. Addresses that are "" are taken from the platform on this machine, if one runs."""

    connections: Connections
    rpc: str = ""
    ray_address: str = ""

    def findings(self) -> list[Finding]:
        """All of them, services first."""
        with ThreadPoolExecutor(len(SERVICES)) as pool:
            views = list(pool.map(self._look, SERVICES))
        found = [finding for view in views for finding in service_findings(view)]
        up = {view.service for view in views if view.serving}
        found += platform_checks.unknown_variables(os.environ)
        found += platform_checks.disk(self.connections.state_dir)
        found += platform_checks.dead_letters(
            _dead_letters(views), partial(waiting_letters, self.connections.state_dir)
        )
        found += self._chain(up)
        found += self._ray()
        found += self._base_models(up)
        return found

    def _look(self, service: str) -> ServiceView:
        try:
            addresses = self.connections.addresses(service)
        except StartupError as error:
            return ServiceView(service, absent=str(error))
        given = os.environ.get(f"OPENLEDGER_{service.upper()}_METRICS_ADDRESS")
        return look(service, str(addresses["grpc"]), given or str(addresses.get("metrics") or ""))

    def _chain(self, up: set[str]) -> Iterator[Finding]:
        rpc = self.rpc or self._local_door("chain")
        if not rpc:
            yield _not_looked_at("chain", "node", "its address is not known here", "set OPENLEDGER_RPC")
            return
        info = None
        if "chain_relay" in up:
            info = yield from self._asked(
                "chain_relay", lambda: self.connections.settlement.GetSettlementInfo(
                    settlement_pb2.GetSettlementInfoRequest(), timeout=self.connections.deadline_s
                )
            )  # fmt: skip
        yield from platform_checks.chain(rpc, info)

    def _ray(self) -> Iterator[Finding]:
        address = self.ray_address or self._local_door("ray")
        if address:
            yield platform_checks.ray(address)
        else:
            yield _not_looked_at(
                "ray", "reached", "its address is not known here", "set OPENLEDGER_TRAINER_RAY_ADDRESS"
            )

    def _base_models(self, up: set[str]) -> Iterator[Finding]:
        if not {"trainer", "inference"} <= up:
            return
        deadline_s = self.connections.deadline_s
        published = yield from self._asked(
            "trainer",
            lambda: self.connections.trainer.ListBaseModels(
                trainer_pb2.ListBaseModelsRequest(), timeout=deadline_s
            ),
        )
        served = yield from self._asked(
            "inference",
            lambda: self.connections.inference.ListServedModels(
                inference_pb2.ListServedModelsRequest(), timeout=deadline_s
            ),
        )
        if published is not None and served is not None:
            yield from platform_checks.base_models(
                (model.digest for model in published.base_models),
                (model.base_digest for model in served.models),
            )

    def _asked(self, service: str, ask: Callable[[], T]) -> Generator[Finding, None, T | None]:
        """The answer of an RPC; None, and a finding, when there is none."""
        try:
            return ask()
        except StartupError as error:
            yield _not_looked_at(service, "asked", str(error), "give --token, OPENLEDGER_TOKEN or --as")
        except grpc.RpcError as error:
            yield Finding("problem", service, "asked", str(from_rpc_error(error)), "look at its log")
        return None

    def _local_door(self, name: str) -> str:
        """Where `openledger up` on this machine said it is."""
        try:
            doors = json.loads((self.connections.state_dir / "run" / "platform.json").read_text())
            return str(doors[name])
        except (OSError, ValueError, KeyError):
            return ""


def _dead_letters(views: list[ServiceView]) -> dict[str, float]:
    """By dead-letter topic; several services may consume one topic, and each says the same of it."""
    counts: dict[str, float] = {}
    for view in views:
        for sample in view.samples.of("openledger_dead_letters_records") if view.samples else ():
            topic = sample.labels["topic"]
            counts[topic] = max(counts.get(topic, 0.0), sample.value)
    return counts


def _not_looked_at(about: str, check: str, why: str, remedy: str) -> Finding:
    return Finding("warning", about, check, f"not looked at: {why}", remedy)
