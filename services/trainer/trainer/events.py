"""Topics in and out: snapshots that datanet sealed come in; runs and model versions go out."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp
from openledger.datanet.v1.events_pb2 import SnapshotSealed
from openledger.trainer.v1 import events_pb2
from sqlalchemy.orm import Session

from identity.names import ModelName
from modelkit.prompt import PromptTemplate, TemplateError
from servicekit import outbox
from servicekit.events import Event, InvalidEvent, new_event
from servicekit.topics import MODEL_VERSION_V1, TRAINING_RUN_V1
from trainer import convert
from trainer.entities import Run, Version
from trainer.store import snapshots
from trainer.store.snapshots import SealedSnapshot

SOURCE = "openledger/trainer"


def snapshot_sealed(session: Session, event: Event[SnapshotSealed]) -> None:
    """Notes a snapshot that can be trained on."""
    sealed, schema = event.message.snapshot, event.message.datanet.schema
    try:
        PromptTemplate(schema.prompt_template, schema.completion_template)
    except TemplateError as error:
        raise InvalidEvent("TEMPLATE", str(error)) from None
    snapshots.put(
        session,
        SealedSnapshot(
            name=sealed.name,
            root=sealed.root,
            manifest_digest=sealed.manifest_digest,
            records_digest=sealed.records_digest,
            prompt=schema.prompt_template,
            completion=schema.completion_template,
        ),
    )


def run_changed(session: Session, run: Run) -> None:
    """Tells a run's new state, when the caller's transaction commits."""
    message = events_pb2.TrainingRunChanged(run=convert.run(run), event_time=_now())
    outbox.add(session, new_event(TRAINING_RUN_V1, message.run.name, message, SOURCE))


def version_changed(session: Session, version: Version) -> None:
    """Tells a model version's new state, when the caller's transaction commits."""
    message = events_pb2.ModelVersionChanged(model_version=convert.version(version), event_time=_now())
    outbox.add(session, new_event(MODEL_VERSION_V1, str(ModelName(version.name.model)), message, SOURCE))


def _now() -> Timestamp:
    time = Timestamp()
    time.GetCurrentTime()
    return time
