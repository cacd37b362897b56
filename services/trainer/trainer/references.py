"""Which stored objects this service needs: what garbage collection must never take (`servicekit.references`)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from servicekit.references import References
from trainer.base_models import BaseModels
from trainer.jobs.files import RESULT_FILE
from trainer.store import jobs
from trainer.store.tables import EvaluationRow, OverrideRow, RunRow, SnapshotRow, VersionRow

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def references(base_models: BaseModels, jobs_folder: Path) -> References:
    """Base models, snapshots, adapters, training manifests, reports, outcomes; and what ended jobs left to be taken over."""

    def found(session: Session) -> Iterator[str]:
        yield from (model.digest for model in base_models.registered())
        for columns in (
            (SnapshotRow.manifest_digest, SnapshotRow.records_digest),
            (RunRow.base_digest,),
            (VersionRow.adapter_digest, VersionRow.training_manifest_digest, VersionRow.report_digest),
            (EvaluationRow.report_digest, EvaluationRow.outcomes_digest),
            (OverrideRow.report_digest,),
        ):
            for row in session.execute(select(*columns).distinct()):
                yield from row
        for snapshots in session.scalars(select(RunRow.snapshots)):
            yield from _DIGEST.findall(json.dumps(snapshots))
        for job in jobs.open_jobs(session):
            yield from _left_by(jobs_folder / job.id)

    return found


def _left_by(job_folder: Path) -> list[str]:
    result = job_folder / RESULT_FILE
    return _DIGEST.findall(result.read_text()) if result.is_file() else []
