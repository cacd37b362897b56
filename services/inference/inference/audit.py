"""The facts of this service: what reconciliation compares with the event log and with other services (`servicekit.audit`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from openledger.audit.v1.audit_pb2 import Fact, KnownModelVersion, LoggedEvent
from openledger.inference.v1.inference_pb2 import InferenceCompleted
from openledger.trainer.v1.trainer_pb2 import ModelVersionState
from sqlalchemy import select
from sqlalchemy.orm import Session

from inference.store import ModelVersionRow
from servicekit.audit import ROWS
from servicekit.wal import records_in, unpack


def facts(session: Session) -> Iterator[Fact]:
    """Yields every model version that this service knows."""
    query = select(ModelVersionRow.name, ModelVersionRow.state)
    for name, state in session.execute(query, execution_options={"yield_per": ROWS}).tuples():
        known = ModelVersionState.Value(f"MODEL_VERSION_STATE_{state.upper()}")
        yield Fact(known_model_version=KnownModelVersion(name=name, state=known))


def logged(wal_folder: Path) -> Iterator[Fact]:
    """Yields every answer that the write-ahead log holds, sent ones included until their segment goes."""
    for payload in records_in(wal_folder):
        record = unpack(payload)
        headers = dict(record.headers)
        if headers.get("ce_type", b"").decode() == InferenceCompleted.DESCRIPTOR.full_name:
            yield Fact(
                logged_event=LoggedEvent(
                    event_id=headers["ce_id"].decode(),
                    topic=record.topic,
                    subject=InferenceCompleted.FromString(record.value).inference,
                )
            )
