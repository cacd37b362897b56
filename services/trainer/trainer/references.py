"""Which stored objects this service needs: what garbage collection must never take (`servicekit.objects.references`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from servicekit.objects.references import References
from trainer.base_models import BaseModels
from trainer.contract.files import RESULT_FILE
from trainer.store import jobs
from trainer.store.tables import (
    EvaluationRow,
    OverrideRow,
    PolicyContentRow,
    PromotionRow,
    RunRow,
    SnapshotRow,
    VersionRow,
)

_OBJECTS_OF_A_SNAPSHOT = ("manifest_digest", "records_digest")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def references(base_models: BaseModels, jobs_folder: Path) -> References:
    """Base models, snapshots, adapters, training manifests, gate policies, reports, outcomes; and results of ended jobs."""

    def found(session: Session) -> Iterator[str]:
        yield from (model.digest for model in base_models.registered())
        for columns in (
            (SnapshotRow.manifest_digest, SnapshotRow.records_digest),
            (RunRow.base_digest,),
            (PolicyContentRow.digest,),
            (VersionRow.adapter_digest, VersionRow.training_manifest_digest, VersionRow.report_digest),
            (EvaluationRow.report_digest, EvaluationRow.outcomes_digest),
            (OverrideRow.report_digest,),
            (PromotionRow.report_digest,),
        ):
            for row in session.execute(select(*columns).distinct()):
                yield from row
        for lifted in session.scalars(select(OverrideRow.failed_reports)):
            yield from lifted
        for snapshots in session.scalars(select(RunRow.snapshots)):
            for snapshot in snapshots:  # its root is a digest too, and names no object
                yield from (snapshot[field] for field in _OBJECTS_OF_A_SNAPSHOT)
        for job in jobs.open_jobs(session):
            yield from _left_by(jobs_folder / job.id)

    return found


def _left_by(job_folder: Path) -> list[str]:
    result = job_folder / RESULT_FILE
    return _DIGEST.findall(result.read_text()) if result.is_file() else []
