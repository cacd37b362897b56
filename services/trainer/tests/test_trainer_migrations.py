"""What the first release wrote, read by this one."""

from __future__ import annotations

from sqlalchemy import JSON, column, select, table

from openledger_testing.first_release import insert_recorded, recorded
from servicekit.database import engine, migrate, reading
from servicekit.database.migrate import migrate_back
from trainer.entities import OverrideState
from trainer.promotion_history import entry_hash
from trainer.store import overrides, promotions, runs


def test_a_run_of_the_first_release_has_its_spec_and_its_assessment(database_url: str) -> None:
    database = engine(database_url)
    before = {row["id"]: row for row in recorded("trainer")["rows"]["training_runs"]}
    migrate(database, "trainer", "0001")
    insert_recorded(database, "trainer")
    migrate(database, "trainer")
    with reading(database) as session:
        for id_, row in before.items():
            run = runs.get(session, id_)
            assert run is not None
            assert run.spec.to_json()["rehearsal"] == row["spec"]["replay"]
            assert run.spec == run.assessment.effective.spec
            assert run.origins == run.assessment.effective.origins
            assert {f"{finding.severity}" for finding in run.assessment.findings} <= {"1", "2", "3"}
            assert len(run.assessment.findings) == len(row["assessment"].get("findings", []))
    migrate_back(database, "trainer", "0003")
    stored = table("training_runs", column("spec", JSON), column("origins", JSON))
    with database.connect() as connection:
        after = connection.execute(select(stored)).all()
    assert [dict(row._mapping) for row in after] == [
        {"spec": row["spec"], "origins": row["origins"]} for row in before.values()
    ]


def test_promotions_of_the_first_release_begin_the_history(database_url: str) -> None:
    database = engine(database_url)
    migrate(database, "trainer", "0001")
    insert_recorded(database, "trainer")
    migrate(database, "trainer")
    before = recorded("trainer")["rows"]
    promoted = [
        (version["model"], version["number"], change["reason"])
        for version in before["model_versions"]
        for change in version["history"]
        if change["state"] == "promoted"
    ]
    assert promoted, "the recording holds no promotion"
    with reading(database) as session:
        for model in {model for model, _, _ in promoted}:
            entries = promotions.history(session, model)
            assert [entry.number for entry in entries] == list(range(1, len(entries) + 1))
            assert [entry.previous_hash for entry in entries] == ["", *map(entry_hash, entries[:-1])]
            found = {(model, entry.version.version, entry.reason) for entry in entries}
            assert found == {each for each in promoted if each[0] == model}
        for row in before["promotion_overrides"]:
            override = overrides.get(session, row["id"])
            assert override is not None
            given = [row["approver"]] if row["approver"] else []
            assert [approval.principal for approval in override.approvals] == given
            assert override.state is (OverrideState.APPROVED if given else OverrideState.PENDING)
    migrate_back(database, "trainer", "0004")
