"""The facts of this service: what reconciliation compares with the event log and with other services (`servicekit.audit`)."""

from __future__ import annotations

from collections.abc import Iterator

from openledger.audit.v1.audit_pb2 import Fact, FinishedRun, KnownSnapshot, ModelVersion
from openledger.trainer.v1.trainer_pb2 import ModelVersionState, Promotion
from sqlalchemy import select
from sqlalchemy.orm import Session

from servicekit.audit import ROWS
from trainer.store.tables import PromotionRow, RunRow, SnapshotRow, VersionRow


def facts(session: Session) -> Iterator[Fact]:
    """Yields every snapshot that this service knows, every model version, every run that made a version, every promotion."""
    streamed = {"yield_per": ROWS}
    for name, root in session.execute(
        select(SnapshotRow.name, SnapshotRow.root), execution_options=streamed
    ).tuples():
        yield Fact(known_snapshot=KnownSnapshot(name=name, root=root))
    row = VersionRow
    query = select(row.model, row.number, row.digest, row.run, row.state)
    for model, number, digest, run, state in session.execute(query, execution_options=streamed).tuples():
        yield Fact(
            model_version=ModelVersion(
                name=f"models/{model}/versions/{number}",
                digest=digest,
                training_run=f"trainingRuns/{run}",
                state=ModelVersionState.Value(f"MODEL_VERSION_STATE_{state.upper()}"),
            )
        )
    for run in session.scalars(select(RunRow.id).where(RunRow.version > 0), execution_options=streamed):
        yield Fact(finished_run=FinishedRun(name=f"trainingRuns/{run}"))
    entries = select(PromotionRow).order_by(PromotionRow.model, PromotionRow.number)
    for entry in session.scalars(entries, execution_options=streamed):
        yield Fact(
            promotion=Promotion(
                name=f"models/{entry.model}/promotions/{entry.number}",
                hash=entry.hash,
                canonical_json=entry.entry,
                model_version=f"models/{entry.model}/versions/{entry.version}",
                report_digest=entry.report_digest,
            )
        )
