"""Topics in and out: snapshots that datanet sealed come in; runs and model versions go out."""

from __future__ import annotations

from openledger.datanet.v1.events_pb2 import SnapshotSealed
from openledger.trainer.v1 import events_pb2
from sqlalchemy.orm import Session

from identity.names import ModelName
from modelkit.prompt import PromptTemplate, TemplateError
from servicekit.database import utc_now
from servicekit.delivery import outbox
from servicekit.eventlog.events import Event, InvalidEvent, new_event
from servicekit.eventlog.topics import MODEL_VERSION_V1, TRAINING_RUN_V1
from servicekit.timestamps import to_proto
from trainer import convert
from trainer.entities import Run, Version
from trainer.store import snapshots
from trainer.store.snapshots import SealedSnapshot

SOURCE = "openledger/trainer"


def snapshot_sealed(session: Session, event: Event[SnapshotSealed]) -> None:
    """Records a snapshot that can be trained on."""
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
    """Publishes a run's new state when the caller's transaction commits."""
    message = events_pb2.TrainingRunChanged(run=convert.run(run), event_time=to_proto(utc_now()))
    outbox.add(session, new_event(TRAINING_RUN_V1, message.run.name, message, SOURCE))


def version_changed(session: Session, version: Version, *, retired: Version | None = None) -> None:
    """Publishes a model version's new state when the caller's transaction commits."""
    message = events_pb2.ModelVersionChanged(
        model_version=convert.version(version),
        event_time=to_proto(utc_now()),
        retired=convert.version(retired) if retired else None,
    )
    outbox.add(session, new_event(MODEL_VERSION_V1, str(ModelName(version.name.model)), message, SOURCE))


def version_promoted(session: Session, promoted: Version, retired: Version | None) -> None:
    """Publishes a promotion with the version that it retires as one event, when the caller's transaction commits.

    Two events would leave readers without a promoted version between them. The event about the retired version alone
    follows for readers that keep one version's history, and for those that do not know the field `retired` yet: they have
    two promoted versions for a moment, and serve the newer one.
    """
    version_changed(session, promoted, retired=retired)
    if retired is not None:
        version_changed(session, retired)
