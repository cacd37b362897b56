"""Tables and queries: the read model of model versions. A restarted service serves from it at once."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from inference.catalogue import Version, VersionState
from servicekit.database import UtcDateTime, new_metadata


class Base(DeclarativeBase):
    """This service's tables, with outbox and inbox."""

    metadata = new_metadata()


class ModelVersionRow(Base):
    """A model version as its newest event describes it."""

    __tablename__ = "model_versions"

    name: Mapped[str] = mapped_column(String(160), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    version_digest: Mapped[str] = mapped_column(String(71))
    base_digest: Mapped[str] = mapped_column(String(71))
    adapter_digest: Mapped[str] = mapped_column(String(71))
    report_digest: Mapped[str] = mapped_column(String(71))
    owner: Mapped[str] = mapped_column(String(256))
    changed: Mapped[datetime] = mapped_column(UtcDateTime())
    event_time: Mapped[datetime] = mapped_column(UtcDateTime())
    """Time of its newest event; an older event that arrives later is not applied."""


def put_version(session: Session, version: Version, event_time: datetime) -> bool:
    """Stores a version as an event describes it. Returns False if a newer event was applied already."""
    row = session.get(ModelVersionRow, version.name)
    if row is not None and row.event_time > event_time:
        return False
    if row is None:
        row = ModelVersionRow(name=version.name)
        session.add(row)
    row.state = version.state.value
    row.version_digest = version.version_digest
    row.base_digest = version.base_digest
    row.adapter_digest = version.adapter_digest
    row.report_digest = version.report_digest
    row.owner = version.owner
    row.changed = version.changed
    row.event_time = event_time
    return True


def versions(session: Session) -> list[Version]:
    """Returns every known version, by name."""
    rows = session.scalars(select(ModelVersionRow).order_by(ModelVersionRow.name))
    return [
        Version(
            name=row.name,
            state=VersionState(row.state),
            version_digest=row.version_digest,
            base_digest=row.base_digest,
            adapter_digest=row.adapter_digest,
            report_digest=row.report_digest,
            owner=row.owner,
            changed=row.changed,
        )
        for row in rows
    ]
