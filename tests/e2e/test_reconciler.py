"""A reconciliation that can only say "nothing lost" would be worthless: each damage must be found, at its link.

Each test damages a copy of a finished demo run and reconciles it by RPC, from the services' own audit modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from openledger_ops.reconcile.book import Book, Fault
from openledger_ops.reconcile.reconciliation import Sources, iteration
from openledger_testing.audit_rig import AuditRig
from openledger_testing.state_copy import State

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.story]
Damage = Callable[[State], None]


def sql(service: str, *statements: str) -> Damage:
    """A change of a service's database behind its back."""
    return lambda state: state.sql(service, *statements)


LAST_ANSWER = "(SELECT max(id) FROM answers)"
LAST_SETTLED = "(SELECT max(position) FROM scored_answer)"
SNAPSHOT_RECORDS = "SELECT records_digest FROM snapshots"

LOST: dict[str, tuple[Damage, str]] = {
    "a record": (
        sql("datanet", "DELETE FROM records WHERE seq = (SELECT max(seq) FROM records WHERE state = 2)"),
        "contribution event published",
    ),
    "a record's decision": (
        sql("datanet", "UPDATE records SET state = 3, rule = 'review' WHERE seq = 5"),
        "contribution event published",
    ),
    "a contribution's event": (
        lambda state: state.forget_event("datanet.contribution.v1"),
        "contribution event published",
    ),
    "a contributor's count": (
        sql(
            "datanet", "UPDATE contributors SET accepted_count = accepted_count - 1 WHERE accepted_count > 0"
        ),
        "contributions counted",
    ),
    "a record's contributor": (
        sql("datanet", "UPDATE records SET contributor = 'copier' WHERE seq = 5"),
        "contribution in the newest snapshot",
    ),
    "a snapshot's records": (
        lambda state: state.remove_object(state.value("datanet", SNAPSHOT_RECORDS)),
        "snapshot objects intact",
    ),
    "a byte of a snapshot's records": (
        lambda state: state.damage_object(state.value("datanet", SNAPSHOT_RECORDS)),
        "snapshot objects intact",
    ),
    "a snapshot's event": (
        lambda state: state.forget_event("datanet.snapshot.v1"),
        "snapshot event published",
    ),
    "a snapshot at the trainer": (sql("trainer", "DELETE FROM snapshots"), "snapshot known to its consumers"),
    "a snapshot at attribution": (
        sql("attribution", "DELETE FROM treasuries"),
        "snapshot known to its consumers",
    ),
    "a snapshot at the relay": (
        sql("chain_relay", "DELETE FROM registered_dataset"),
        "snapshot known to its consumers",
    ),
    "a version's last state": (
        lambda state: state.forget_event("model.version.v1"),
        "model version event published",
    ),
    "a version at inference": (
        sql("inference", "UPDATE model_versions SET state = 'trained'"),
        "model version known to its consumers",
    ),
    "a version at attribution": (
        sql("attribution", "DELETE FROM model_versions"),
        "model version known to its consumers",
    ),
    "a run's version": (
        sql("trainer", "DELETE FROM model_versions WHERE number = 2"),
        "training run has its version",
    ),
    "an answer's event": (lambda state: state.forget_event("inference.completed.v1"), "answer attributed"),
    "an answer": (
        sql("attribution", f"DELETE FROM answers WHERE id = {LAST_ANSWER}"),
        "answer attributed",
    ),
    "the mark that an event was handled": (
        sql("attribution", "DELETE FROM inbox WHERE event_id = (SELECT max(event_id) FROM inbox)"),
        "inference.completed.v1 -> attribution",
    ),
    "a byte of an attribution record": (
        sql("attribution", "UPDATE answers SET record = CAST(record || ' ' AS BLOB)"),
        "attribution record intact",
    ),
    "an attribution's event": (
        lambda state: state.forget_event("attribution.scored.v1"),
        "attribution event published",
    ),
    "a settled answer": (
        sql("chain_relay", f"DELETE FROM scored_answer WHERE position = {LAST_SETTLED}"),
        "answer settled",
    ),
    "a leaf": (
        sql(
            "chain_relay",
            f"UPDATE scored_answer SET batch_seq = NULL, event_index = NULL WHERE position = {LAST_SETTLED}",
        ),
        "answer in exactly one batch",
    ),
    "a batch": (sql("chain_relay", "DELETE FROM batch WHERE seq = 0"), "batch intact"),
    "a batch's root": (sql("chain_relay", "UPDATE batch SET root = zeroblob(32)"), "batch intact"),
    "a batch's data": (
        lambda state: state.remove_object(state.value("chain_relay", "SELECT data_digest FROM batch")),
        "batch intact",
    ),
    "a part of a fee": (
        sql("chain_relay", "DELETE FROM journal WHERE line = 0"),
        "fee of an answer",
    ),
    "an earning": (
        sql("chain_relay", "DELETE FROM earning WHERE rowid = (SELECT max(rowid) FROM earning)"),
        "totals of a batch",
    ),
    "a reward account": (
        sql("chain_relay", "DELETE FROM reward_account WHERE position = 0"),
        "reward root",
    ),
}

DOUBLED: dict[str, tuple[Damage, str]] = {
    "a contribution's event": (
        lambda state: state.repeat_event("datanet.contribution.v1", same_id=False),
        "contribution event published",
    ),
    "a contributor's count": (
        sql("datanet", "UPDATE contributors SET accepted_count = accepted_count + 1"),
        "contributions counted",
    ),
    "a snapshot's event": (
        lambda state: state.repeat_event("datanet.snapshot.v1", same_id=False),
        "snapshot event published",
    ),
    "an answer's event": (
        lambda state: state.repeat_event("inference.completed.v1", same_id=False),
        "answer event published",
    ),
    "an attribution's event": (
        lambda state: state.repeat_event("attribution.scored.v1", same_id=False),
        "attribution event published",
    ),
    "a settled answer": (
        lambda state: state.repeat_row(
            "chain_relay", "scored_answer", position=1000, inference="inferences/01ARZ3NDEKTSV4RRFFQ69G5FAV"
        ),
        "answer settled",
    ),
    "a batch": (
        lambda state: state.repeat_row("chain_relay", "batch", seq=1),
        "answer in exactly one batch",
    ),
    "a part of a fee": (
        sql(
            "chain_relay",
            "INSERT INTO journal SELECT inference, line + 100, kind, beneficiary, address, amount FROM journal"
            " WHERE amount <> '0'",
        ),
        "fee of an answer",
    ),
    "an earning": (
        sql(
            "chain_relay",
            "INSERT INTO earning SELECT batch_seq, kind, beneficiary, 'elsewhere', amount FROM earning"
            " WHERE amount <> '0'",
        ),
        "totals of a batch",
    ),
    "a share": (
        sql("attribution", "UPDATE answers SET unattributed_ppm = unattributed_ppm + 1"),
        "attribution record intact",
    ),
}


@pytest.fixture(scope="module")
def rig() -> Iterator[AuditRig]:
    with AuditRig() as running:
        yield running


Reconcile = Callable[[State], Book]


@pytest.fixture
def reconcile(rig: AuditRig) -> Reconcile:
    """One iteration over a state folder, without its chain."""

    def over(state: State) -> Book:
        rig.show(state.folder)
        return iteration(Sources(client=rig.client, event_log=state.event_log, rpc=""))

    return over


@pytest.fixture
def state(demo: Path, tmp_path: Path) -> State:
    """A copy of what the demo run left."""
    return State.copied(demo / "state", tmp_path / "copy")


def test_the_story_left_nothing_lost_doubled_or_waiting(state: State, reconcile: Reconcile) -> None:
    book = reconcile(state)
    assert book.findings == []
    links = ("contribution event published", "answer event published", "batch intact", "reward root")
    assert min(book.checked[link] for link in links) > 0
    assert book.state_times.keys() == {"datanet", "trainer", "inference", "attribution", "chain_relay"}


@pytest.mark.parametrize("thing", LOST)
def test_a_lost_thing_is_found(state: State, reconcile: Reconcile, thing: str) -> None:
    damage, link = LOST[thing]
    damage(state)
    assert reconcile(state).count(Fault.LOST, link) > 0


@pytest.mark.parametrize("thing", DOUBLED)
def test_a_doubled_thing_is_found(state: State, reconcile: Reconcile, thing: str) -> None:
    damage, link = DOUBLED[thing]
    damage(state)
    assert reconcile(state).count(Fault.DOUBLED, link) > 0


@pytest.mark.parametrize(
    "topic", ["datanet.contribution.v1", "inference.completed.v1", "attribution.scored.v1"]
)
def test_an_event_that_was_sent_again_with_its_id_is_no_second_one(
    state: State, reconcile: Reconcile, topic: str
) -> None:
    state.repeat_event(topic, same_id=True)
    assert reconcile(state).findings == []


def test_what_has_not_arrived_yet_is_not_lost(state: State, reconcile: Reconcile) -> None:
    state.repeat_event("model.version.v1", same_id=False)
    book = reconcile(state)
    assert book.count(Fault.WAITING) == 3  # at each of its consumers
    assert book.count(Fault.LOST) == book.count(Fault.DOUBLED) == 0
