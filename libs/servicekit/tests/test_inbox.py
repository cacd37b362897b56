"""An event takes effect once for each consumer."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import Engine, text

from servicekit.database import run_in_transaction, transaction
from servicekit.delivery import inbox


def test_an_event_is_new_once_for_each_consumer(service_db: Engine) -> None:
    with transaction(service_db) as session:
        assert inbox.once(session, "a", "1")
        assert not inbox.once(session, "a", "1")
        assert inbox.once(session, "b", "1")
    with transaction(service_db) as session:
        assert not inbox.once(session, "a", "1")
        assert inbox.once(session, "a", "2")


def test_an_effect_that_was_rolled_back_leaves_the_event_new(service_db: Engine) -> None:
    def fail() -> None:
        with transaction(service_db) as session:
            assert inbox.once(session, "a", "1")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with transaction(service_db) as session:
        assert inbox.once(session, "a", "1")


def test_of_two_that_race_one_makes_the_effect(service_db: Engine) -> None:
    effects: list[bool] = []
    together = threading.Barrier(4)

    def take() -> None:
        together.wait()
        effects.append(run_in_transaction(service_db, lambda session: inbox.once(session, "a", "1")))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(effects) == [False, False, False, True]


def test_pruning_forgets_only_what_is_old_and_ones_own(service_db: Engine) -> None:
    with transaction(service_db) as session:
        for consumer, event_id in (("a", "old"), ("a", "new"), ("b", "old")):
            inbox.once(session, consumer, event_id)
        session.execute(text("UPDATE inbox SET processed_ms = processed_ms - 7200000 WHERE event_id = 'old'"))
        assert inbox.prune(session, "a", older_than_hours=1) == 1
    with transaction(service_db) as session:
        assert inbox.once(session, "a", "old")
        assert not inbox.once(session, "a", "new")
        assert not inbox.once(session, "b", "old")
