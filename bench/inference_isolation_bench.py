"""Tokens a second and their p99 gap with Kafka, attribution and the chain all down, against all healthy, in one run.

    python bench/inference_isolation_bench.py [--quick] [--model smollm2-135m-instruct|tiny] [--pairs 10] [--seconds 8]
        [--streams 8] [--shared] [--json FILE]

Real processes: Apache Kafka, anvil, inference, attribution and the relay, each started as in production. Blocks of healthy
and down alternate in pairs (h d, d h, h d, ...); before a healthy block everything is up and has caught up. "Down" is kill -9
of Kafka and of attribution, and the end of anvil; the relay is left to do without both. All streams ask the base model for
answers of the same length, as soon as their last one ended. A gap is the time between two pieces of one answer's text.

At the end all are started once more, and every answer that was reported to a client as finished must be attributed and in a
batch, once.

Inference has half of the cores, and all else the other half; there the client goes first (the others are niced), because a
client that is kept waiting for a core asks less, and would be on another machine. What is asked is whether inference waits for
the others, not what a core costs. With --shared all compete for all cores, as on a laptop, and healthy is then slower by what
the others compute.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from openledger.attribution.v1 import attribution_pb2
from openledger.attribution.v1.attribution_pb2_grpc import AttributionServiceStub
from openledger.inference.v1 import inference_pb2
from openledger.inference.v1.inference_pb2_grpc import InferenceServiceStub
from openledger.settlement.v1 import settlement_pb2
from openledger.settlement.v1.settlement_pb2_grpc import SettlementServiceStub

from blocks import in_turn, ratio
from openledger_client.channels import channel, sync_channel
from openledger_testing.anvil import anvil_binary
from openledger_testing.kafka_broker import KafkaBroker, fetch_jars
from servicekit.auth import DevelopmentIssuer
from servicekit.testing.ports import claimed_port

PROMISE = 0.95
_PATIENCE_S = 300.0
_BEHIND = 15
"""Niceness of what is not inference and not its client."""


def until(condition: Callable[[], bool], what: str) -> None:
    """Waits for a condition that other processes bring about. Raises TimeoutError."""
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {_PATIENCE_S:.0f} s")
        time.sleep(0.1)


class Service:
    """One of our services as a process, always on the same port."""

    def __init__(
        self, name: str, environment: dict[str, str], log: Path, cores: set[int] | None = None
    ) -> None:
        """`cores` None are those of this process."""
        self._cores = cores
        self.port = claimed_port()
        self._name = name
        self._environment = {**environment, f"OPENLEDGER_{name.upper()}_GRPC_PORT": str(self.port)}
        self._log = log
        self._process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """0 when it does not run."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """Until it says that it is ready."""
        pin = None if self._cores is None else partial(os.sched_setaffinity, 0, self._cores)
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._name],
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                preexec_fn=pin,
            )
        assert self._process.stdout is not None
        if not any('"event": "ready"' in line for line in self._process.stdout):
            raise RuntimeError(f"{self._name} did not start: {self._log.read_text()[-2000:]}")

    def end(self, how: signal.Signals) -> None:
        """By a signal; nothing when it does not run."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None


class World:
    """All of it. `up` and `down` do nothing when it is so already."""

    def __init__(self, folder: Path, model: str, cores: set[int] | None) -> None:
        """`cores` are inference's own."""
        self.folder = folder
        self._cores = cores
        self.kafka = KafkaBroker(folder / "kafka")
        self.chain_port = claimed_port()
        environment = {
            **os.environ,
            "OPENLEDGER_STATE_DIR": str(folder / "state"),
            "OPENLEDGER_AUTH_MODE": "development",
            "OPENLEDGER_EVENT_LOG": f"kafka://{self.kafka.address}",
            "OPENLEDGER_LOG_LEVEL": "WARNING",
            "OPENLEDGER_INFERENCE_BASE_MODEL": model,
            "OPENLEDGER_CHAIN_RELAY_RPC_URL": f"http://127.0.0.1:{self.chain_port}",
            "OPENLEDGER_CHAIN_RELAY_CHAIN_DEPLOY": "development",
            "OPENLEDGER_CHAIN_RELAY_BATCH_MAX_AGE_S": "5",
            "OPENLEDGER_RATE_PER_S": "100000",
            "OPENLEDGER_RATE_BURST": "100000",
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        self.inference, self.attribution, self.relay = (
            Service(name, environment, folder / f"{name}.log", cores if name == "inference" else None)
            for name in ("inference", "attribution", "chain_relay")
        )
        self._anvil: subprocess.Popen[bytes] | None = None
        self.healthy = False
        self.finished: list[str] = []
        """Inferences that were reported to a client as finished."""

    def token(self) -> str:
        return DevelopmentIssuer(self.folder / "state").mint("bench", ["admin"])

    def up(self) -> None:
        """Everything runs and has caught up."""
        if not self.healthy:
            self.kafka.start()
            self._start_chain()
            self.attribution.start()
            self.healthy = True
            self.step_back()
        self.caught_up()

    def down(self) -> None:
        """Kafka, attribution and the chain are gone."""
        if self.healthy:
            self.kafka.kill()
            self.attribution.end(signal.SIGKILL)
            self._end_chain()
            self.healthy = False

    def step_back(self) -> None:
        """All but inference give way to the client. Linux counts niceness by thread; later threads inherit it."""
        if self._cores is None:
            return
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                if process.pid != self.inference.pid:
                    for thread in process.threads():
                        os.setpriority(os.PRIO_PROCESS, thread.id, _BEHIND)

    def caught_up(self) -> None:
        """Waits until every answer so far is attributed."""
        with sync_channel(self.attribution.address, self.token()) as opened:
            stub = AttributionServiceStub(opened)
            until(lambda: _scored(stub) >= len(self.finished), "attribution of every answer")

    @contextmanager
    def running(self) -> Iterator[World]:
        """From nothing; all processes are gone afterwards."""
        with ExitStack() as ending:
            ending.callback(self._end_chain)
            ending.callback(self.kafka.stop)
            self.kafka.start()
            self._start_chain()
            for service in (self.inference, self.attribution, self.relay):
                ending.callback(service.end, signal.SIGKILL)
                service.start()
            self.healthy = True
            self.step_back()
            yield self

    def _start_chain(self) -> None:
        state = str(self.folder / "anvil.json")
        self._anvil = subprocess.Popen(
            [str(anvil_binary()), "--port", str(self.chain_port), "--block-time", "1", "--slots-in-an-epoch", "2",
             "--state", state, "--state-interval", "1", "--silent"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def _end_chain(self) -> None:
        if self._anvil is not None:
            self._anvil.terminate()  # it writes its state: what it had mined is the chain's, not ours to lose
            self._anvil.wait(30)
            self._anvil = None


@dataclass
class Load:
    """What one block saw."""

    tokens: int = 0
    gaps_s: list[float] = field(default_factory=list)

    @property
    def p99_s(self) -> float:
        return statistics.quantiles(self.gaps_s, n=100)[98]


async def ask(world: World, streams: int, seconds: float, tokens: int) -> Load:
    """All streams ask until the time is over; an answer that has begun is read to its end."""
    load = Load()
    request = inference_pb2.GenerateRequest(
        model=f"baseModels/{world_base(world)}",
        prompt="The group has used spear phishing messages with malicious attachments to",
        sampling=inference_pb2.SamplingParameters(max_output_tokens=tokens, temperature=1.0),
    )
    until_s = time.perf_counter() + seconds
    async with channel(world.inference.address, world.token()) as opened:
        stub = InferenceServiceStub(opened)

        async def stream() -> None:
            while time.perf_counter() < until_s:
                inference, last_piece_s = "", 0.0
                async for part in stub.Generate(request, timeout=120):
                    now = time.perf_counter()
                    inference = part.started.inference or inference
                    if part.HasField("delta"):
                        if last_piece_s:
                            load.gaps_s.append(now - last_piece_s)
                        last_piece_s = now
                    elif part.HasField("finished"):
                        load.tokens += part.finished.usage.output_tokens
                        world.finished.append(inference)

        await asyncio.gather(*(stream() for _ in range(streams)))
    return load


def world_base(world: World) -> str:
    """Name of the base model that is served, asked once."""
    if not hasattr(world, "base"):
        with sync_channel(world.inference.address, world.token()) as opened:
            served = InferenceServiceStub(opened).ListServedModels(inference_pb2.ListServedModelsRequest())
        world.base = served.models[0].name.removeprefix("baseModels/")  # type: ignore[attr-defined]
    return world.base  # type: ignore[attr-defined, no-any-return]


def _scored(stub: Any) -> int:
    return int(
        stub.SummarizeAttributions(attribution_pb2.SummarizeAttributionsRequest(), timeout=60).answer_count
    )


def accounts(world: World) -> dict[str, int]:
    """Counts after all are back: answers reported to clients, lost and doubled, in attribution and in batches."""
    world.up()
    with sync_channel(world.attribution.address, world.token()) as opened:
        stub = AttributionServiceStub(opened)
        attributed: list[str] = []
        page = ""
        while True:
            answer = stub.ListAttributions(
                attribution_pb2.ListAttributionsRequest(page_size=1000, page_token=page)
            )
            attributed += [each.inference for each in answer.attributions]
            page = answer.next_page_token
            if not page:
                break
    with sync_channel(world.relay.address, world.token()) as opened:
        settlement = SettlementServiceStub(opened)

        def in_batches() -> int:
            settlement.FlushBatch(settlement_pb2.FlushBatchRequest(), timeout=60)
            found, token = 0, ""
            while True:
                listed = settlement.ListBatches(
                    settlement_pb2.ListBatchesRequest(page_size=100, page_token=token)
                )
                found += sum(batch.event_count for batch in listed.batches)
                token = listed.next_page_token
                if not token:
                    return found

        until(lambda: in_batches() >= len(set(world.finished)), "a batch for every answer")
        events = in_batches()
    reported = set(world.finished)
    return {
        "answers": len(reported),
        "lost_in_attribution": len(reported - set(attributed)),
        "doubled_in_attribution": len(attributed) - len(set(attributed)),
        "events_in_batches": events,
        "not_in_exactly_one_batch": abs(events - len(set(attributed))),
    }


def measure(world: World, arguments: argparse.Namespace) -> dict[str, Any]:
    """Pairs of blocks, then the accounts."""
    gaps: dict[str, list[float]] = {"healthy": [], "down": []}

    def block(state: str, enter: Callable[[], None]) -> float:
        enter()
        begun = time.perf_counter()
        load = asyncio.run(ask(world, arguments.streams, arguments.seconds, arguments.tokens))
        gaps[state].append(load.p99_s)
        return load.tokens / (time.perf_counter() - begun)

    asyncio.run(
        ask(world, arguments.streams, 3.0, arguments.tokens)
    )  # the first steps of a process are slower
    rates = in_turn(lambda: block("down", world.down), lambda: block("healthy", world.up), arguments.pairs)
    return {
        "model": arguments.model,
        "down_tokens_per_s": statistics.median(rates[0]),
        "healthy_tokens_per_s": statistics.median(rates[1]),
        "tokens_ratio": vars(ratio(*rates)),
        "down_gap_p99_ms": statistics.median(gaps["down"]) * 1000,
        "healthy_gap_p99_ms": statistics.median(gaps["healthy"]) * 1000,
        "gap_p99_ratio": vars(ratio(gaps["down"], gaps["healthy"])),
        "accounts": accounts(world),
        "promise": PROMISE,
    }


def split_cores() -> set[int] | None:
    """Leaves this process, and what it starts, half of its cores; returns the other half. None when there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    own = set(cores[: len(cores) // 2])
    if own:
        os.sched_setaffinity(0, set(cores) - own)
    return own or None


def main() -> int:
    """Measure, print, write the figures when asked; code 1 when an answer was lost or doubled."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a quick check, not a measurement: the tiny model, 2 pairs of 2 s",
    )
    parser.add_argument("--model", choices=("smollm2-135m-instruct", "tiny"), default="smollm2-135m-instruct")
    parser.add_argument("--shared", action="store_true", help="all compete for all cores")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=8.0, help="of a block")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=32, help="of an answer, at most")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.model, arguments.pairs, arguments.seconds = "tiny", 2, 2.0
    fetch_jars()
    own = None if arguments.shared else split_cores()
    with (
        tempfile.TemporaryDirectory() as folder,
        World(Path(folder), arguments.model, own).running() as world,
    ):
        found = measure(world, arguments)
    found["cores"] = "inference has its own" if own else "shared"
    rate, gap, counted = found["tokens_ratio"], found["gap_p99_ratio"], found["accounts"]
    print(
        f"{'':10}{'tokens/s':>10}{'p99 gap':>12}\n"
        f"{'healthy':10}{found['healthy_tokens_per_s']:10.1f}{found['healthy_gap_p99_ms']:9.1f} ms\n"
        f"{'down':10}{found['down_tokens_per_s']:10.1f}{found['down_gap_p99_ms']:9.1f} ms\n"
        f"down / healthy: tokens/s {rate['median']:.3f} [{rate['lower']:.3f}, {rate['upper']:.3f}] (at least {PROMISE}), "
        f"p99 gap {gap['median']:.3f} [{gap['lower']:.3f}, {gap['upper']:.3f}] (at most {2 - PROMISE:.2f}), "
        f"{rate['pairs']} pairs, {rate['confidence']:.0%}\n"
        f"{counted['answers']} answers reported to clients; when all were back: {counted['lost_in_attribution']} lost, "
        f"{counted['doubled_in_attribution']} doubled, {counted['not_in_exactly_one_batch']} not in exactly one batch"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    return int(
        any(
            counted[what]
            for what in ("lost_in_attribution", "doubled_in_attribution", "not_in_exactly_one_batch")
        )
    )


if __name__ == "__main__":
    sys.exit(main())
