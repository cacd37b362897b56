"""The facts of more answers than one read of the database returns."""

from __future__ import annotations

from pathlib import Path

from chain_relay.audit import facts
from chain_relay.store import tables
from servicekit.audit import ROWS
from servicekit.database import engine, reading, transaction, utc_now


def test_every_answer_is_a_fact_however_many_there_are(tmp_path: Path) -> None:
    made = engine(f"sqlite:///{tmp_path}/relay.db")
    tables.Base.metadata.create_all(made)
    names = [f"inferences/{number}" for number in range(2 * ROWS + 1)]
    with transaction(made) as session:
        session.add_all(
            tables.ScoredAnswer(
                inference=name,
                model_digest="",
                report_digest="",
                record_digest="",
                fee=0,
                dust=0,
                receive_time=utc_now(),
            )
            for name in names
        )
    with reading(made) as session:
        found = [fact.settled_answer.inference for fact in facts(session) if fact.HasField("settled_answer")]
    made.dispose()
    assert found == names
