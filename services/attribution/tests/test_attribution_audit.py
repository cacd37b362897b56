"""The facts of more answers than one read of the database returns."""

from __future__ import annotations

from pathlib import Path

from attribution.audit import facts
from attribution.store import AnswerRow, Base
from servicekit.audit import ROWS
from servicekit.database import engine, reading, transaction, utc_now


def test_every_answer_is_a_fact_however_many_there_are(tmp_path: Path) -> None:
    made = engine(f"sqlite:///{tmp_path}/attribution.db")
    Base.metadata.create_all(made)
    names = [f"{number:026d}" for number in range(2 * ROWS + 1)]
    with transaction(made) as session:
        session.add_all(
            AnswerRow(
                id=name, model_version="", version_digest="", pending=True, event=b"", not_before=utc_now()
            )
            for name in names
        )
    with reading(made) as session:
        found = [
            fact.attributed_answer.inference for fact in facts(session) if fact.HasField("attributed_answer")
        ]
    made.dispose()
    assert found == [f"inferences/{name}" for name in names]
