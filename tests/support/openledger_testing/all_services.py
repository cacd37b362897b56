"""All five services as real processes, as a stranger on the network meets them; their every log line is kept."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import subprocess
import sys
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import openledger
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from openledger.datanet.v1 import datanet_pb2
from openledger.datanet.v1.datanet_pb2_grpc import DatanetServiceStub

from openledger_client import sealing, services
from openledger_client.channels import sync_channel
from openledger_testing.anvil import Anvil
from openledger_testing.trace_collector import Collector
from servicekit.auth import DevelopmentIssuer

SERVICES = tuple(service.name for service in services.ALL)
DATANET = "datanets/notes"
ALICE = f"{DATANET}/contributors/alice"
LICENCE = "CC0-1.0"

for _module in pkgutil.walk_packages(openledger.__path__, "openledger."):
    importlib.import_module(_module.name)  # so that every service can be described


@dataclass
class Running:
    """One service: its process and its endpoints."""

    process: subprocess.Popen[str]
    log: Path
    grpc: str = ""
    http: str = ""

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Its log so far; what is no JSON line is a line of its own."""
        found = []
        for line in self.log.read_text().splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                found.append({"level": "ERROR", "message": f"not JSON: {line}"})
        return found


@dataclass
class AllServices:
    """Services on an embedded log, SQLite and anvil; at DEBUG, with a collector of their spans. No Ray: nothing trains."""

    folder: Path
    services: dict[str, Running] = field(default_factory=dict)
    collector: Collector = field(default_factory=Collector)
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        with self._stack as stack:
            chain = stack.enter_context(Anvil())
            stack.enter_context(self.collector)
            environment = self._environment(chain.url)
            stack.callback(self._stop)
            for name in SERVICES:
                self.services[name] = self._start(name, environment)
            for name, service in self.services.items():
                self._wait_ready(name, service)
            self.issuer = DevelopmentIssuer(self.folder)
            self._create_datanet()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def token(self, principal: str, *roles: str) -> str:
        """A token that all services accept."""
        return self.issuer.mint(principal, roles)

    def channel(self, service: str, token: str | None = None) -> grpc.Channel:
        """A channel to a service."""
        return sync_channel(self.services[service].grpc, token)

    def served(self) -> dict[str, list[MethodDescriptor]]:
        """By service, every RPC that its server says it has (gRPC reflection), but for health and reflection."""
        return {name: list(self._methods(name)) for name in self.services}

    def is_healthy(self) -> bool:
        """Returns whether each process runs and says that it serves."""
        for name, service in self.services.items():
            with self.channel(name) as over:
                asked = health_pb2_grpc.HealthStub(over).Check(health_pb2.HealthCheckRequest(), timeout=60)
            if service.process.poll() is not None or asked.status != asked.SERVING:
                return False
        return True

    def _environment(self, rpc: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENLEDGER_")}
        return {
            **kept,
            "OPENLEDGER_STATE_DIR": str(self.folder),
            "OPENLEDGER_AUTH_MODE": "development",
            "OPENLEDGER_LOG_LEVEL": "DEBUG",
            "OPENLEDGER_OTLP_ENDPOINT": self.collector.endpoint,
            "OPENLEDGER_RATE_PER_S": "1e6",  # limits have tests of their own; here everything should get through
            "OPENLEDGER_RATE_BURST": "1000000",
            "OPENLEDGER_MAX_RUNNING_CALLS": "100000",
            "OPENLEDGER_COMPUTE": "fp32",
            "OPENLEDGER_INFERENCE_BASE_MODEL": "tiny",
            "OPENLEDGER_TRAINER_BASE_MODELS": "tiny",
            "OPENLEDGER_TRAINER_RAY_ADDRESS": "http://127.0.0.1:9",
            "OPENLEDGER_TRAINER_POLL_INTERVAL_S": "30",
            "OPENLEDGER_CHAIN_RELAY_RPC_URL": rpc,
            "OPENLEDGER_CHAIN_RELAY_CHAIN_DEPLOY": "development",
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }

    def _start(self, name: str, environment: dict[str, str]) -> Running:
        log = self.folder / f"{name}.log"
        with log.open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", name],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
            )
        return Running(process, log)

    def _wait_ready(self, name: str, service: Running) -> None:
        assert service.process.stdout is not None
        for line in service.process.stdout:
            if '"event": "ready"' in line:
                ready = json.loads(line)
                service.grpc, service.http = ready["grpc"], ready["http"] or ""
                # Nothing else is printed; if it were, a full pipe must not stop the service.
                threading.Thread(target=service.process.stdout.read, daemon=True).start()
                return
        raise RuntimeError(f"{name} did not start: {service.log.read_text()[-2000:]}")

    def _stop(self) -> None:
        for service in self.services.values():
            service.process.terminate()
        for service in self.services.values():
            try:
                service.process.wait(60)
            except subprocess.TimeoutExpired:
                service.process.kill()
                service.process.wait()

    def _methods(self, name: str) -> list[MethodDescriptor]:
        with self.channel(name, self.token("walker")) as over:
            ask = reflection_pb2_grpc.ServerReflectionStub(over).ServerReflectionInfo
            listed = next(ask(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=60))
            names = [each.name for each in listed.list_services_response.service]
            own = [each for each in names if not each.startswith("grpc.")]
            found = []
            for service in own:
                request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=service)
                answer = next(ask(iter([request]), timeout=60))
                files = [
                    FileDescriptorProto.FromString(data)
                    for data in answer.file_descriptor_response.file_descriptor_proto
                ]
                methods = {
                    f"{file.package}.{each.name}": [method.name for method in each.method]
                    for file in files
                    for each in file.service
                }
                described = descriptor_pool.Default().FindServiceByName(service)
                found += [described.methods_by_name[method] for method in methods[service]]
        return found

    def _create_datanet(self) -> None:
        """A Datanet with a contributor, a record and a snapshot, so that names in requests may be of something."""
        with (
            self.channel("datanet", self.token("olga", "curator")) as owner_channel,
            self.channel("datanet", self.token("alice", "contributor")) as alice_channel,
        ):
            owner: Any = DatanetServiceStub(owner_channel)
            schema = datanet_pb2.RecordSchema(
                fields=[datanet_pb2.RecordSchema.Field(name="text", required=True, max_length=4000)],
                prompt_template="Report: {text}",
                completion_template=" {text}",
            )
            policy = datanet_pb2.QualityPolicy(contamination_check=datanet_pb2.CONTAMINATION_CHECK_OFF)
            content = datanet_pb2.Datanet(licence=LICENCE, schema=schema, policy=policy)
            owner.CreateDatanet(
                datanet_pb2.CreateDatanetRequest(datanet_id="notes", datanet=content), timeout=60
            )
            contributor = datanet_pb2.Contributor(principal="alice", consent_licence=LICENCE)
            owner.RegisterContributor(
                datanet_pb2.RegisterContributorRequest(
                    parent=DATANET, contributor_id="alice", contributor=contributor
                ),
                timeout=60,
            )
            texts = (f"The group lists the processes of host {number} and waits." for number in range(12))
            records = [
                datanet_pb2.ContributeRequest(contributor=ALICE, content=json.dumps({"text": text}).encode())
                for text in texts
            ]
            answers = list(DatanetServiceStub(alice_channel).Contribute(iter(records), timeout=60))
            assert {answer.state for answer in answers} == {datanet_pb2.RECORD_STATE_ACCEPTED}
            sealing.seal(owner, datanet_pb2.SealSnapshotRequest(parent=DATANET))
