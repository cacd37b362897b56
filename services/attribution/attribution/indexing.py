"""Builds indexes one after the other, the one that has waited longest first.

States of an index: requested, building, ready; or failed, and then requested again after a growing pause. After a crash,
finished work is in the work folder, and the build resumes from there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Engine, update
from sqlalchemy.orm import Session

from attribution import builder, metrics, store
from attribution.clusters import CONTROL
from attribution.gradients import Example
from attribution.index import IndexParameters
from attribution.models import AdapterModels
from attribution.projection import FloatArray
from attribution.source import Source, read_source
from servicekit import retries
from servicekit.database import run_in_transaction, utc_now
from servicekit.objects import ObjectStore
from servicekit.server.loops import repeat

logger = logging.getLogger(__name__)

_LONGEST_BUILD_S = 6 * 3600.0
"""An index takes an hour per some million records; a step that is longer is stuck."""
_POLL_EVERY_S = 0.5
_LONGEST_PAUSE_S = 300.0


@dataclass(frozen=True, kw_only=True)
class IndexTask:
    """An index to build."""

    version_digest: str
    model_version: str
    base_digest: str
    adapter_digest: str
    training_manifest_digest: str
    failures: int


class Indexer:
    """Builds requested indexes. Safe in several processes: they may build an index twice, and one result is stored."""

    def __init__(
        self,
        *,
        engine: Engine,
        objects: ObjectStore,
        models: AdapterModels,
        parameters: IndexParameters,
        work_dir: Path,
        batch_tokens: int,
    ) -> None:
        self._engine = engine
        self._objects = objects
        self._models = models
        self._parameters = parameters
        self._work_dir = work_dir
        self._batch_tokens = batch_tokens

    def run(self, stop: threading.Event) -> None:
        """Builds until `stop` is set; finishes the current batch. Retries while the database is down."""
        repeat(lambda: self.step(stop), every_s=_POLL_EVERY_S, name="indexer", bound_s=_LONGEST_BUILD_S)(stop)

    def step(self, stop: threading.Event) -> bool:
        """Builds the next index. Returns False if none is requested."""
        task = run_in_transaction(self._engine, _next)
        if task is None:
            return False
        self._attempt(task, stop)
        return True

    def _attempt(self, task: IndexTask, stop: threading.Event) -> None:
        started = time.monotonic()
        outcome = "ready"
        try:
            self._build(task, stop)
        except builder.Stopped:
            outcome = "stopped"
        except Exception as error:
            outcome = "failed"
            logger.exception("index of %s failed, trying again later", task.model_version)
            self._update(
                task,
                stage="failed",
                error=f"{type(error).__name__}: {error}",
                failures=task.failures + 1,
                not_before=utc_now() + timedelta(seconds=_pause_s(task.failures + 1)),
            )
        metrics.index_built(outcome, time.monotonic() - started)

    def _build(self, task: IndexTask, stop: threading.Event) -> None:
        self._update(task, stage="reading", error="", done=0)
        source = read_source(task.training_manifest_digest, self._objects)
        controls = sum(record.row.split == CONTROL for record in source.records)
        self._update(
            task,
            total=len(source.records),
            control_count=controls,
            record_count=len(source.records) - controls,
        )
        request = builder.BuildRequest(
            training_manifest_digest=task.training_manifest_digest,
            source=source,
            parameters=self._parameters,
            compute=self._models.compute,
            work_dir=self._work_dir,
            batch_tokens=self._batch_tokens,
        )
        digest = builder.build(
            request,
            gradients=self._gradients_of(source),
            layout=self._models.layout(task.base_digest, task.adapter_digest),
            tokenizer=self._models.tokenizer(task.base_digest),
            store=self._objects,
            report=lambda stage, done, total, eta_s: self._progress(task, stage, done, eta_s),
            stop=stop,
        )
        self._update(task, stage="ready", digest=digest, done=len(source.records), eta_s=0.0)
        logger.info("index of %s is ready", task.model_version, extra={"index": digest})

    def _gradients_of(self, source: Source) -> builder.Gradients:
        base, adapter = source.manifest.base_digest, source.manifest.adapter_digest

        def gradients(examples: Sequence[Example]) -> FloatArray:
            found = self._models.gradients(base, adapter, examples)
            metrics.records_indexed(len(examples))
            return found

        return gradients

    def _progress(self, task: IndexTask, stage: str, done: int, eta_s: float) -> None:
        values: dict[str, object] = {"stage": stage, "eta_s": eta_s}
        self._update(task, **(values | {"done": done} if stage == "gradients" else values))

    def _update(self, task: IndexTask, **values: object) -> None:
        """Commits at once: progress is informational, and the important part (the digest) is one statement."""

        def write(session: Session) -> None:
            row = store.IndexRow
            session.execute(
                update(row)
                .where(row.version_digest == task.version_digest, row.digest == "")
                .values(**values)
            )

        run_in_transaction(self._engine, write)


def _next(session: Session) -> IndexTask | None:
    now = utc_now()
    for version in store.versions_without_index(session):
        store.request_index(session, version, now)
        session.flush()
    found = store.next_index(session, now)
    if found is None:
        return None
    index, version = found
    return IndexTask(
        version_digest=index.version_digest,
        model_version=version.name,
        base_digest=version.base_digest,
        adapter_digest=version.adapter_digest,
        training_manifest_digest=version.training_manifest_digest,
        failures=index.failures,
    )


def _pause_s(failures: int) -> float:
    """Returns 1 s to 5 minutes: a missing object may appear soon, an inconsistent one may never be fixed."""
    return min(_LONGEST_PAUSE_S, 10 * retries.delay_s(failures))
