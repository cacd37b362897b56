"""Requests that arrive or are handled share a bounded number of bytes, fairly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from servicekit.errors import DomainError, ResourceExhausted
from servicekit.server.http_calls import http_app
from servicekit.server.http_routes import post
from servicekit.server.pipeline import Pipeline
from servicekit.server.request_memory import Held, RequestMemory
from servicekit.server.steps.errors import errors
from servicekit.testing.waiting import LONGEST_S

WAIT_S = 0.05


def memory(wait_s: float = 10, undisturbed_s: float = 10) -> RequestMemory:
    """Room for 8 bytes, 4 of them for one principal."""
    return RequestMemory(8, 4, wait_s=wait_s, undisturbed_s=undisturbed_s)


async def waiting(call: Awaitable[Held]) -> asyncio.Future[Held]:
    """Returns the call once it waits."""
    task = asyncio.ensure_future(call)
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()
    return task


def run(test: Callable[[], Awaitable[Any]]) -> None:
    asyncio.run(asyncio.wait_for(test(), LONGEST_S))


def test_one_principal_gets_half_and_others_the_rest() -> None:
    async def test() -> None:
        bound = memory(WAIT_S)
        await bound.admit("ann", 4)
        with pytest.raises(ResourceExhausted) as refused:
            await bound.admit("ann", 1)
        await bound.admit("bob", 4)
        assert bound.used_bytes == 8
        assert (refused.value.reason, refused.value.retry_after_s) == ("REQUEST_MEMORY", 1)
        assert "4 of 8 bytes, 4 of them of this principal" in str(refused.value)

    run(test)


def test_a_principal_at_its_limit_does_not_delay_others() -> None:
    async def test() -> None:
        bound = memory()
        await bound.admit("ann", 4)
        ann = await waiting(bound.admit("ann", 1))
        await bound.admit("bob", 4)
        ann.cancel()

    run(test)


def test_what_ends_makes_room_for_the_principal_that_holds_the_least() -> None:
    async def test() -> None:
        bound = memory()
        first, _, _ = [await bound.admit(name, size) for name, size in (("ann", 4), ("bob", 3), ("eve", 1))]
        bob, eve, new = [await waiting(bound.admit(name, 2)) for name in ("bob", "eve", "new")]
        bound.release(first)
        await asyncio.gather(eve, new)
        assert not bob.done()
        bob.cancel()

    run(test)


def test_a_received_request_keeps_only_what_it_has() -> None:
    async def test() -> None:
        bound = memory()
        held = await bound.admit("ann", 4)
        second = await waiting(bound.admit("ann", 3))
        bound.shrink(held, 1)
        bound.release(await second)
        bound.release(held)
        assert bound.used_bytes == 0

    run(test)


def test_calls_that_give_up_leave_nothing_behind() -> None:
    async def test() -> None:
        bound = memory()
        held = await bound.admit("ann", 4)
        cancelled, admitted = [await waiting(bound.admit("ann", size)) for size in (1, 1)]
        cancelled.cancel()
        bound.release(held)
        admitted.cancel()  # when it is admitted, and does not know yet
        assert await asyncio.gather(cancelled, admitted, return_exceptions=True)
        assert bound.used_bytes == 0
        bound.release(await bound.admit("ann", 4))

    run(test)


async def receive(bound: RequestMemory, held: Held) -> None:
    async with bound.receiving(held):
        await asyncio.Event().wait()


def test_an_incomplete_request_makes_room_only_when_another_waits() -> None:
    async def test() -> None:
        bound = memory()
        held = [await bound.admit(name, 4) for name in ("ann", "bob")]
        for each in held:
            each.begun -= 60
        stalled = [asyncio.ensure_future(receive(bound, each)) for each in held]
        await asyncio.sleep(WAIT_S)
        assert not any(each.done() for each in stalled)
        third = asyncio.ensure_future(bound.admit("eve", 1))
        with pytest.raises(ResourceExhausted, match="incomplete") as ended:
            await stalled[0]
        assert ended.value.reason == "REQUEST_INCOMPLETE"
        bound.release(held[0])
        await third
        assert not stalled[1].done()
        stalled[1].cancel()

    run(test)


def test_no_other_principal_makes_room_for_one_at_its_own_limit() -> None:
    async def test() -> None:
        bound = memory(WAIT_S)
        mine, other = [await bound.admit(name, 4) for name in ("ann", "bob")]
        other.begun -= 60
        stalled = asyncio.ensure_future(receive(bound, other))
        with pytest.raises(ResourceExhausted):
            await bound.admit("ann", 1)
        assert not stalled.done()
        stalled.cancel()
        bound.release(mine)

    run(test)


def test_streams_are_counted_for_the_process_and_for_each_principal() -> None:
    bound = RequestMemory(8, 8)

    def refused(principal: str) -> bool:
        try:
            with bound.stream(principal):
                return False
        except ResourceExhausted:
            return True

    with bound.stream("ann"), bound.stream("ann"):
        assert refused("ann")
        assert not refused("bob")
        with bound.stream("bob"), bound.stream("bob"), bound.stream("eve"), bound.stream("eve"):
            with bound.stream("dan"), bound.stream("dan"):
                assert refused("new")
            assert not refused("new")
    assert not refused("ann")


class Body(BaseModel):
    text: str


class Errors:
    def response(self, error: DomainError, status: int) -> Response:
        return PlainTextResponse(error.reason, status)

    def event(self, error: DomainError) -> bytes:
        return b""


async def used(request: Request, body: Body) -> Response:
    return PlainTextResponse(str(request.app.state.memory.used_bytes))


def test_http_bodies_count_by_their_length_until_the_call_ends() -> None:
    async def test() -> None:
        bound = RequestMemory(2000, 1, wait_s=WAIT_S)
        app = http_app([post("/", Body, used, public=True)], Pipeline((errors,), bound), Errors())
        app.state.memory = bound
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as one:
            body = b'{"text": "' + b"x" * 500 + b'"}'
            assert (await one.post("/", content=body)).text == str(len(body))
            assert bound.used_bytes == 0
            await bound.admit("", 600)
            refused = await one.post("/", content=body)
            assert (refused.status_code, refused.text) == (429, "REQUEST_MEMORY")
            assert refused.headers["retry-after"] == "1"

            async def chunks() -> AsyncIterator[bytes]:
                yield b'{"text": ""}'

            undeclared = await one.post("/", content=chunks())  # the route's limit is reserved
            assert (undeclared.status_code, undeclared.text) == (429, "REQUEST_MEMORY")

    run(test)
