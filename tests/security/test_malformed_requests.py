"""Whatever a stranger sends, each real service answers it by a typed error, reveals nothing of its internals, and continues.

`OPENLEDGER_FUZZ_REQUESTS` (10,000 unless set) and `OPENLEDGER_FUZZ_SEED`: `make fuzz` sends 100,000 from a new seed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import error_details_pb2, status_pb2

from openledger_testing.all_services import AllServices
from openledger_testing.malformed_requests import CANARY, TRICKS, Generator, Hostile
from servicekit.errors import DOMAIN

pytestmark = [pytest.mark.server, pytest.mark.slow]

REQUESTS = int(os.environ.get("OPENLEDGER_FUZZ_REQUESTS", "10000"))
SEED = int(os.environ.get("OPENLEDGER_FUZZ_SEED", "20260101"))
AT_ONCE = 32
# Streams that wait for something to happen (a run's progress, a batch's states, an answer's text) end by this.
DEADLINE_S = 1.0
UNARY_DEADLINE_S = 60.0

Code = grpc.StatusCode
Metadata = tuple[tuple[str, str | bytes], ...]
TYPED = {
    Code.INVALID_ARGUMENT,
    Code.NOT_FOUND,
    Code.ALREADY_EXISTS,
    Code.PERMISSION_DENIED,
    Code.UNAUTHENTICATED,
    Code.FAILED_PRECONDITION,
    Code.RESOURCE_EXHAUSTED,
    Code.ABORTED,
}
"""Errors that name what the caller did or must wait for. Not among them: INTERNAL, UNKNOWN, DATA_LOSS, UNAVAILABLE."""


@dataclass
class Findings:
    """What came back."""

    codes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, number: int, call: Hostile, error: Any) -> None:
        code = Code.OK if error is None else error.code()
        self.codes[code.name] += 1
        problem = None if error is None else _problem(call, error)
        if problem:
            outcome = f"{problem}: {code.name} {error.details() if error else ''!r}"[:300]
            data = [message.hex()[:400] for message in call.messages]
            self.wrong.append(
                f"request {number}, {call.method.full_name} as {call.token}: {outcome}; bytes {data}"
            )


def _problem(call: Hostile, error: Any) -> str | None:
    code, text = error.code(), error.details() or ""
    if "Traceback" in text or 'File "' in text:
        return "the answer shows a traceback"
    if code is Code.CANCELLED and call.cancels:
        return None
    if code is Code.DEADLINE_EXCEEDED:
        waits = call.method.server_streaming or call.method.name == "GetAttribution"
        return None if waits and not call.method.client_streaming else "a call that waits for nothing hung"
    if code not in TYPED:
        return "not a typed error"
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info) and info.domain == DOMAIN and info.reason:
                    return None
    return "the error does not say its reason"


class Stranger:
    """Sends to one service over a few connections."""

    def __init__(self, platform: AllServices, service: str, tokens: dict[str, str]) -> None:
        address = platform.services[service].grpc
        # Connections of their own: gRPC would share one among channels to the same address.
        own = [("grpc.use_local_subchannel_pool", 1)]
        self._channels = [grpc.aio.insecure_channel(address, options=own) for _ in range(2)]
        # gRPC's asyncio client calls a stream that its server ends while it writes INTERNAL ("Internal error from Core"),
        # whatever the server said; the synchronous client reports the server's status.
        self._for_streams = grpc.insecure_channel(address, options=own)
        self._tokens = tokens
        self._methods: dict[tuple[int, str], Any] = {}

    async def send(self, number: int, call: Hostile, findings: Findings) -> None:
        """Sends one call and notes what came back."""
        metadata = (*call.metadata, *self._authorization(call.token))
        begin = self._method(number, call.method)
        try:
            if call.method.client_streaming:
                await asyncio.to_thread(_stream, begin, call, metadata)
            else:
                await _ask(begin, call, metadata)
        except grpc.RpcError as error:
            findings.add(number, call, error)
        except asyncio.CancelledError:
            if not call.cancels:
                raise
            findings.codes["CANCELLED"] += 1
        else:
            findings.add(number, call, None)

    async def close(self) -> None:
        """Ends its connections."""
        for channel in self._channels:
            await channel.close()
        self._for_streams.close()

    def _method(self, number: int, method: MethodDescriptor) -> Any:
        index = -1 if method.client_streaming else number % len(self._channels)
        kind = "_".join(
            "stream" if s else "unary" for s in (method.client_streaming, method.server_streaming)
        )
        path = f"/{method.containing_service.full_name}/{method.name}"
        if (index, path) not in self._methods:
            over = self._for_streams if method.client_streaming else self._channels[index]
            self._methods[index, path] = getattr(over, kind)(path)
        return self._methods[index, path]

    def _authorization(self, token: str) -> tuple[tuple[str, str], ...]:
        if token == "none":
            return ()
        given = f"not.a.{CANARY}" if token == "gibberish" else self._tokens[token]
        return (("authorization", f"Bearer {given}"),)


def _stream(begin: Any, call: Hostile, metadata: Metadata) -> None:
    started = begin(iter(call.messages), metadata=metadata, timeout=UNARY_DEADLINE_S)
    if call.cancels:
        started.cancel()
    for _ in started:
        pass


async def _ask(begin: Any, call: Hostile, metadata: Metadata) -> None:
    waits = call.method.server_streaming or call.method.name == "GetAttribution"
    timeout = DEADLINE_S if waits else UNARY_DEADLINE_S
    started = begin(call.messages[0], metadata=metadata, timeout=timeout)
    if call.cancels:
        await asyncio.sleep(0)
        started.cancel()
    if call.method.server_streaming:
        async for _ in started:
            pass
    else:
        await started


async def send_all(platform: AllServices, seed: int, requests: int) -> Findings:
    served = platform.served()
    methods = [method for found in served.values() for method in found]
    home = {method.full_name: service for service, found in served.items() for method in found}
    tokens = {
        "admin": platform.token("fuzz-admin", "admin"),
        "alice": platform.token("alice", "contributor"),
        "user": platform.token("fuzz-user", "user"),
    }
    strangers = {service: Stranger(platform, service, tokens) for service in served}
    generator, findings, numbers = Generator(methods, seed), Findings(), iter(range(requests))

    async def work() -> None:
        for number in numbers:
            call = generator.call()
            await strangers[home[call.method.full_name]].send(number, call, findings)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    for stranger in strangers.values():
        await stranger.close()
    return findings


def test_malformed_requests_are_answered_by_typed_errors_and_harm_nothing(platform: AllServices) -> None:
    print(f"seed {SEED}, {REQUESTS} requests")
    processes = {name: service.process.pid for name, service in platform.services.items()}
    findings = asyncio.run(send_all(platform, SEED, REQUESTS))
    print(dict(findings.codes))
    assert not findings.wrong, f"seed {SEED}: {len(findings.wrong)} wrong answers\n" + "\n".join(
        findings.wrong[:20]
    )
    assert sum(findings.codes.values()) == REQUESTS
    assert findings.codes["INVALID_ARGUMENT"] > REQUESTS / 4
    assert findings.codes["OK"] > 0, "nothing got through: the requests are too wrong to reach the services"
    assert platform.is_healthy()
    assert processes == {name: service.process.pid for name, service in platform.services.items()}
    for name, service in platform.services.items():
        failed = [line for line in service.lines if line["message"] == "rpc failed"]
        assert not failed, f"{name}: {json.dumps(failed[0])[:2000]}"
        repeated = [line for line in service.log.read_text().splitlines() if CANARY in line]
        assert not repeated, f"{name} logs what strangers send: {repeated[0][:2000]}"


def _body(random_: random.Random) -> bytes:
    good = {"model": "baseModels/tiny", "prompt": "The actor", "max_tokens": 2}
    field_ = random_.choice((*good, "stream", "stop", "n", "temperature", "messages", "seed", "tools"))
    value = random_.choice(
        (*TRICKS, None, -1, 2**70, 1.5, True, [], {}, ["x"] * 9, [{"role": "x"}], CANARY * 1000)
    )
    whole = json.dumps({**good, field_: value}).encode()
    cut = whole[: random_.randrange(len(whole))]
    return random_.choice((whole, whole, cut, random_.randbytes(60), b"[" * 10_000, b"\xff", b"null"))


async def _ask_http_api(platform: AllServices, seed: int, requests: int) -> list[str]:
    random_ = random.Random(seed)
    token = platform.token("fuzz-user", "user")
    wrong = []
    url = f"http://{platform.services['inference'].http}"
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        for number in range(requests):
            path = random_.choice(("completions", "chat/completions", "models/../x", "models/%00", "é" * 50))
            bearer = random_.choice((token, token, token, f"not.a.{CANARY}"))
            reply = await client.post(
                f"/v1/{path}", content=_body(random_), headers={"authorization": f"Bearer {bearer}"}
            )
            if reply.status_code >= 500 or "Traceback" in reply.text:
                wrong.append(f"request {number} to {path}: {reply.status_code} {reply.text[:300]}")
            elif reply.status_code >= 400 and reply.json()["error"].keys() != {
                "message",
                "type",
                "param",
                "code",
            }:
                wrong.append(f"request {number} to {path}: {reply.text[:300]}")
    return wrong


def test_the_http_api_answers_malformed_requests_in_openais_form(platform: AllServices) -> None:
    wrong = asyncio.run(_ask_http_api(platform, SEED, max(200, REQUESTS // 50)))
    assert not wrong, f"seed {SEED}: {len(wrong)} wrong answers\n" + "\n".join(wrong[:20])
    assert platform.is_healthy()
