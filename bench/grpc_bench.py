"""Unary calls a second through everything a service puts before a handler, beside bare grpc.aio, in one run.

    python bench/grpc_bench.py [--quick] [--pairs 8] [--seconds 4] [--callers 32] [--json FILE] [--profile]

Both servers are processes of their own with the same trivial handler, and take the same calls (a token, a traced header, a
name) from the same client process. "ours" has the pipeline of every service: trace, metrics, errors, token verification,
rate, permission, deadline, the proto's rules; no exporter, logs as in production. Blocks alternate. Calls a second depend on
the client as well, which shares the cores; the server's processor time a call does not. --profile prints where ours spends
its time (py-spy's view of one block).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import psutil
from openledger.datanet.v1 import datanet_pb2, datanet_pb2_grpc

from blocks import in_turn, ratio

REQUEST = datanet_pb2.GetDatanetRequest(name="datanets/threat-intel")
GOAL = 0.5


class Api(datanet_pb2_grpc.DatanetServiceServicer):
    """A handler that costs nothing."""

    async def GetDatanet(self, request: Any, context: Any) -> datanet_pb2.Datanet:
        return datanet_pb2.Datanet(name=request.name)


async def serve_bare() -> None:
    """grpc.aio as its own example has it."""
    server = grpc.aio.server()
    datanet_pb2_grpc.add_DatanetServiceServicer_to_server(Api(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"grpc": f"127.0.0.1:{port}"}), flush=True)
    await server.wait_for_termination()


def serve_ours(state: str) -> None:
    """As each of our services."""
    from servicekit.server import Service
    from servicekit.settings import ServiceSettings

    unlimited = {"rate_per_s": 1e9, "rate_burst": 10**9, "max_running_calls": 10**6}
    settings = ServiceSettings(
        state_dir=Path(state), auth_mode="development", log_level="WARNING", **unlimited
    )
    service = Service("datanet", settings, None)
    service.add_servicer(datanet_pb2_grpc.add_DatanetServiceServicer_to_server, Api())
    service.run()


class Server:
    """One of the two, as a process."""

    def __init__(self, kind: str, state: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", kind, "--state", state], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.address = str(json.loads(self.process.stdout.readline())["grpc"])
        self._watched = psutil.Process(self.process.pid)
        self.cpu_us: list[float] = []

    def cpu_s(self) -> float:
        times = self._watched.cpu_times()
        return float(times.user + times.system)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


async def calls(address: str, token: str, callers: int, seconds: float) -> int:
    """How many calls end in that time."""
    metadata = (
        ("authorization", f"Bearer {token}"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"),
    )
    done = 0
    async with grpc.aio.insecure_channel(address) as channel:
        stub = datanet_pb2_grpc.DatanetServiceStub(channel)
        await stub.GetDatanet(REQUEST, metadata=metadata)
        until = time.perf_counter() + seconds

        async def call() -> None:
            nonlocal done
            while time.perf_counter() < until:
                await stub.GetDatanet(REQUEST, metadata=metadata)
                done += 1

        await asyncio.gather(*(call() for _ in range(callers)))
    return done


def block(server: Server, token: str, callers: int, seconds: float) -> float:
    """Calls a second of one block; keeps the server's processor time a call."""
    cpu_s = server.cpu_s()
    begun = time.perf_counter()
    done = asyncio.run(calls(server.address, token, callers, seconds))
    server.cpu_us.append((server.cpu_s() - cpu_s) / done * 1e6)
    return done / (time.perf_counter() - begun)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Both, in turn."""
    from servicekit.auth import DevelopmentIssuer

    with tempfile.TemporaryDirectory() as state, ExitStack() as running:
        ours, bare = Server("ours", state), Server("bare", state)
        running.callback(ours.stop)
        running.callback(bare.stop)
        token = DevelopmentIssuer(Path(state)).mint("bench", ["admin"])

        def take(server: Server, seconds: float = arguments.seconds) -> float:
            return block(server, token, arguments.callers, seconds)

        for server in (ours, bare):
            take(server, 1.0)
            server.cpu_us.clear()
        if arguments.profile:
            profile(ours, lambda: take(ours, 10.0))
        rates = in_turn(lambda: take(ours), lambda: take(bare), arguments.pairs)
        return {
            "ours_calls_per_s": sorted(rates[0])[len(rates[0]) // 2],
            "bare_calls_per_s": sorted(rates[1])[len(rates[1]) // 2],
            "ratio": vars(ratio(*rates)),
            "ours_server_cpu_us": sorted(ours.cpu_us)[len(ours.cpu_us) // 2],
            "bare_server_cpu_us": sorted(bare.cpu_us)[len(bare.cpu_us) // 2],
            "goal": GOAL,
        }


def profile(server: Server, load: Any) -> None:
    """What the server's process does while the load lasts."""
    with tempfile.NamedTemporaryFile(suffix=".txt") as stacks:
        watching = subprocess.Popen(
            [
                "py-spy",
                "record",
                "--gil",
                "-d",
                "8",
                "-r",
                "500",
                "-f",
                "raw",
                "-o",
                stacks.name,
                "-p",
                str(server.process.pid),
            ],
            stdout=subprocess.DEVNULL,
        )
        load()
        watching.wait()
        own: dict[str, int] = {}
        whole: dict[str, int] = {}
        total = 0
        for line in Path(stacks.name).read_text().splitlines():
            frames, _, count = line.rpartition(" ")
            total += int(count)
            names = frames.split(";")
            own[names[-1]] = own.get(names[-1], 0) + int(count)
            for name in set(names):
                whole[name] = whole.get(name, 0) + int(count)
    for title, found in (("in it and below", whole), ("in it", own)):
        print(f"\n{title}")
        for name, count in sorted(found.items(), key=lambda each: -each[1])[:45]:
            print(f"{count / total:7.1%}  {name}")


def main() -> int:
    """Measure, print, write the figures when asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="a quick check, not a measurement: 3 pairs of 1 s"
    )
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a block")
    parser.add_argument("--callers", type=int, default=32, help="calls under way at once")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--serve", choices=("ours", "bare"), help=argparse.SUPPRESS)
    parser.add_argument("--state", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve_ours(arguments.state) if arguments.serve == "ours" else asyncio.run(serve_bare())
        return 0
    if arguments.quick:
        arguments.pairs, arguments.seconds = 3, 1.0
    found = measure(arguments)
    print(
        f"{'':6}{'calls/s':>10}{'server CPU a call':>20}\n"
        f"{'ours':6}{found['ours_calls_per_s']:10,.0f}{found['ours_server_cpu_us']:17.0f} us\n"
        f"{'bare':6}{found['bare_calls_per_s']:10,.0f}{found['bare_server_cpu_us']:17.0f} us\n"
        f"ours / bare, calls a second: {found['ratio']['median']:.2f}"
        f" [{found['ratio']['lower']:.2f}, {found['ratio']['upper']:.2f}] (goal {GOAL})"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
