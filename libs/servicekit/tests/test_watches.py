"""Watchers are woken by commits, see other processes' changes, and cost nothing each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from typing import Any

import pytest
from sqlalchemy import Engine, bindparam, event, text
from sqlalchemy.orm import Session

from servicekit.database import engine, transaction
from servicekit.database.watches import Changes
from servicekit.testing.waiting import LONGEST_S, eventually_async

IDLE = 100


def versions(session: Session, keys: Collection[str]) -> Mapping[str, int]:
    query = text("SELECT name, version FROM things WHERE name IN :keys").bindparams(
        bindparam("keys", expanding=True)
    )
    return {row.name: row.version for row in session.execute(query, {"keys": list(keys)})}


@pytest.fixture
def db(database_url: str) -> Iterator[Engine]:
    made = engine(database_url)
    with transaction(made) as session:
        session.execute(text("CREATE TABLE things (name VARCHAR(40) PRIMARY KEY, version INTEGER)"))
        session.execute(text("INSERT INTO things VALUES ('a', 1), ('b', 1)"))
    yield made
    made.dispose()


def change(db: Engine, name: str, changes: Changes | None = None, *, fail: bool = False) -> None:
    with transaction(db) as session:
        session.execute(text("UPDATE things SET version = version + 1 WHERE name = :n"), {"n": name})
        if changes is not None:
            changes.notify(session, name)
        if fail:
            raise RuntimeError("rolled back")


async def next_of(stream: AsyncIterator[None]) -> None:
    await asyncio.wait_for(anext(stream), LONGEST_S)


async def test_a_commit_of_this_process_wakes_the_watchers_of_its_key_at_once(db: Engine) -> None:
    changes = Changes(db, versions, poll_s=3600)
    one, other, unrelated = changes.watch("a"), changes.watch("a"), changes.watch("b")
    for stream in (one, other, unrelated):
        await next_of(stream)  # at once: read what there is
    waiting = asyncio.ensure_future(anext(unrelated))
    await asyncio.to_thread(change, db, "a", changes)
    await next_of(one)
    await next_of(other)
    assert not waiting.done()
    await asyncio.to_thread(change, db, "b", changes)
    await asyncio.wait_for(waiting, LONGEST_S)


async def test_a_change_that_is_rolled_back_wakes_no_watcher(db: Engine) -> None:
    changes = Changes(db, versions, poll_s=3600)
    stream = changes.watch("a")
    await next_of(stream)
    waiting = asyncio.ensure_future(anext(stream))
    with pytest.raises(RuntimeError):
        await asyncio.to_thread(change, db, "a", changes, fail=True)
    await asyncio.sleep(0)
    assert not waiting.done()
    await asyncio.to_thread(change, db, "a", changes)
    await asyncio.wait_for(waiting, LONGEST_S)


async def test_a_change_of_another_process_is_seen_by_the_poll(db: Engine, database_url: str) -> None:
    changes = Changes(db, versions, poll_s=0.02)
    stream = changes.watch("a")
    await next_of(stream)
    await next_of(stream)  # the first poll wakes in any case
    other = engine(database_url)
    await asyncio.to_thread(change, other, "a")
    await next_of(stream)
    other.dispose()


async def test_a_hundred_idle_watchers_cost_at_most_five_queries_a_poll_and_none_when_they_leave(
    db: Engine,
) -> None:
    statements: list[str] = []
    polls: list[Collection[str]] = []

    def counting(session: Session, keys: Collection[str]) -> Mapping[str, int]:
        found = versions(session, keys)
        polls.append(keys)
        return found

    @event.listens_for(db, "before_cursor_execute")
    def count(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        statements.append(statement)

    changes = Changes(db, counting, poll_s=0.05)
    streams = [changes.watch(name) for name in ("a", "b") for _ in range(IDLE // 2)]
    for stream in streams:
        await next_of(stream)
    waiting = [asyncio.ensure_future(anext(stream)) for stream in streams]
    await eventually_async(lambda: len(polls) >= 3, "three polls")
    for future in waiting:
        future.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    for stream in streams:
        await stream.aclose()  # type: ignore[attr-defined]
    assert changes._poller is None
    assert 3 <= len(statements) <= 5 * (len(polls) + 1)  # one may not be counted yet
