"""The bytes of responses that are not sent yet have a bound, which principals share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from servicekit.errors import ResourceExhausted
from servicekit.server.response_memory import SMALL_BYTES, ResponseMemory

SIZE = 2 * SMALL_BYTES
ALL = 8 * 2 * SIZE
"""Eight principals with two responses each."""


class Context:
    """Of a call whose response is sent when the test says so."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[object], None]] = []

    def add_done_callback(self, callback: Callable[[object], None]) -> None:
        self._callbacks.append(callback)

    def done(self) -> None:
        for callback in self._callbacks:
            callback(self)


async def test_a_principal_whose_responses_are_not_sent_is_refused_and_others_are_not() -> None:
    memory = ResponseMemory(ALL)
    unsent = [Context(), Context()]
    for context in unsent:
        await memory.until_sent("slow", SIZE, context)
    with pytest.raises(ResourceExhausted) as refused:
        await memory.until_sent("slow", SIZE, Context())
    assert refused.value.reason == "RESPONSE_MEMORY"
    assert refused.value.retry_after_s is not None
    await memory.until_sent("other", SIZE, Context())
    unsent[0].done()
    await memory.until_sent("slow", SIZE, Context())
    assert memory.used_bytes == 3 * SIZE


async def test_a_message_of_a_stream_counts_while_it_is_written() -> None:
    memory = ResponseMemory(ALL)
    async with memory.written("reader", SIZE):
        assert memory.used_bytes == SIZE
    assert memory.used_bytes == 0


async def test_a_write_that_fails_counts_no_longer() -> None:
    memory = ResponseMemory(ALL)
    with pytest.raises(ConnectionError):
        async with memory.written("reader", SIZE):
            raise ConnectionError
    assert memory.used_bytes == 0


async def test_small_responses_are_never_refused() -> None:
    memory = ResponseMemory(ALL)
    for _ in range(100):
        await memory.until_sent("watcher", SMALL_BYTES, Context())
        async with memory.written("watcher", SMALL_BYTES):
            pass
    assert memory.used_bytes == 0


async def test_beyond_a_quarter_of_the_room_a_refusal_comes_at_once_and_only_to_those_that_hold_too_much() -> (
    None
):
    memory = ResponseMemory(ALL)
    for _ in range(2):
        await memory.until_sent("slow", SIZE, Context())
    waiting = [asyncio.create_task(memory.until_sent("slow", SIZE, Context())) for _ in range(50)]
    await asyncio.sleep(0)
    refused_at_once = sum(task.done() for task in waiting)
    assert refused_at_once == 50 - ALL // 4 // SIZE
    await memory.until_sent("other", SIZE, Context())
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(outcome, ResourceExhausted) for outcome in outcomes)
