"""Runs every check and collects the findings."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from openledger.inference.v1 import inference_pb2
from openledger.settlement.v1 import settlement_pb2
from openledger.trainer.v1 import trainer_pb2

from openledger_client import services
from openledger_client.client import Client
from openledger_client.errors import ConfigurationError, OpenLedgerError, PermissionDenied, Unauthenticated
from openledger_client.services import CHAIN_RELAY, INFERENCE, TRAINER, Service
from openledger_client.tls import Tls
from openledger_ops.dead_letters import waiting_letters
from openledger_ops.doctor import platform_checks
from openledger_ops.doctor.finding import Finding, problem, unchecked
from openledger_ops.doctor.observation import Observation, observe
from openledger_ops.doctor.parallel import in_parallel
from openledger_ops.doctor.service_checks import service_findings
from openledger_ops.state_folder import up_address
from servicekit.errors import StartupError

T = TypeVar("T")

LIMIT_S = 20.0
_FOR_SERVICES = 0.5
"""Part of the time for the services' endpoints; the other checks need what they show."""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """Of one platform, by one caller. Addresses that are "" are taken from the platform on this machine, if one runs."""

    client: Client
    rpc: str = ""
    ray_address: str = ""
    limit_s: float = LIMIT_S

    def findings(self) -> list[Finding]:
        """Returns all findings, those about services first, within about `limit_s`, whatever the platform answers."""
        begun = time.monotonic()
        observing = [partial(self._observe, service) for service in services.ALL]
        observed = in_parallel(observing, self.limit_s * _FOR_SERVICES)
        late = f"it has not answered within {self.limit_s * _FOR_SERVICES:g} s"
        seen = [
            one or Observation(service=service.name, absent=late)
            for service, one in zip(services.ALL, observed, strict=True)
        ]
        found = [finding for one in seen for finding in service_findings(one)]
        up = {one.service for one in seen if one.serving}
        state_dir = self.client.addresses.state_dir
        found += platform_checks.unknown_variables(os.environ)
        found += platform_checks.disk(state_dir)
        letters = partial(
            platform_checks.dead_letters, _dead_letters(seen), partial(waiting_letters, state_dir)
        )
        checks: dict[str, Callable[[], Iterable[Finding]]] = {
            "event log": letters,
            "chain": partial(self._chain, up),
            "ray": self._ray,
            "base model": partial(self._base_models, up),
        }
        left_s = max(0.0, begun + self.limit_s - time.monotonic())
        made = in_parallel([partial(_all, check) for check in checks.values()], left_s)
        for about, findings in zip(checks, made, strict=True):
            late = f"not answered within the {self.limit_s:g} s of the whole examination"
            found += (
                [unchecked(about, "time", late, "check whether it answers")] if findings is None else findings
            )
        return found

    def _observe(self, service: Service[object]) -> Observation:
        try:
            address = self.client.addresses.of(service)
        except ConfigurationError as error:
            return Observation(service=service.name, absent=str(error))
        operations = os.environ.get(service.variable("metrics_address")) or address.metrics
        return observe(service.name, address.grpc, operations, Tls.from_environment())

    def _chain(self, up: set[str]) -> Iterator[Finding]:
        rpc = self.rpc or up_address(self.client.addresses.state_dir, "chain")
        if not rpc:
            yield unchecked("chain", "node", "its address is not known here", "set OPENLEDGER_RPC")
            return
        info = None
        if CHAIN_RELAY.name in up:
            request = settlement_pb2.GetSettlementInfoRequest()
            info = yield from self._asked(
                CHAIN_RELAY, lambda: self.client.settlement.GetSettlementInfo(request)
            )
        yield from platform_checks.chain(rpc, info)

    def _ray(self) -> Iterator[Finding]:
        address = self.ray_address or up_address(self.client.addresses.state_dir, "ray")
        if address:
            yield platform_checks.ray(address)
        else:
            remedy = f"set {TRAINER.variable('ray_address')}"
            yield unchecked("ray", "reached", "its address is not known here", remedy)

    def _base_models(self, up: set[str]) -> Iterator[Finding]:
        if not {TRAINER.name, INFERENCE.name} <= up:
            return
        published = yield from self._asked(
            TRAINER,
            lambda: self.client.trainer.ListBaseModels(trainer_pb2.ListBaseModelsRequest()),
        )
        served = yield from self._asked(
            INFERENCE,
            lambda: self.client.inference.ListServedModels(inference_pb2.ListServedModelsRequest()),
        )
        if published is not None and served is not None:
            yield from platform_checks.base_models(
                (model.digest for model in published.base_models),
                (model.base_digest for model in served.models),
            )

    def _asked(self, service: Service[object], call: Callable[[], T]) -> Generator[Finding, None, T | None]:
        """Returns the answer of an RPC; None, and a finding, when it fails."""
        try:
            return call()
        except (ConfigurationError, StartupError) as error:
            yield unchecked(service.name, "asked", str(error), "give --token, OPENLEDGER_TOKEN or --as")
        except OpenLedgerError as error:
            yield failed_call(service, error)
        return None


def failed_call(service: Service[object], error: OpenLedgerError) -> Finding:
    """Returns the finding for an RPC that failed. One that refuses its caller says nothing of the platform's health."""
    if isinstance(error, PermissionDenied):
        return unchecked(service.name, "asked", str(error), "ask with a role that has it, e.g. operator")
    if isinstance(error, Unauthenticated):
        remedy = "give a valid token: --token, OPENLEDGER_TOKEN or --as"
        return unchecked(service.name, "asked", str(error), remedy)
    return problem(service.name, "asked", str(error), "read its log")


def _all(check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    return list(check())


def _dead_letters(seen: list[Observation]) -> dict[str, float]:
    """Returns the number of dead letters by topic. Several services may consume one topic; each reports the same number."""
    counts: dict[str, float] = {}
    for one in seen:
        for sample in one.samples.of("openledger_dead_letters_records") if one.samples else ():
            topic = sample.labels["topic"]
            counts[topic] = max(counts.get(topic, 0.0), sample.value)
    return counts
