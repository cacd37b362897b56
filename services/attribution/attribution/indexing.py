"""The thread that builds indexes: one after the other, the one that has waited longest first.

States of an index: wanted, building, ready; or failed, and then wanted again after a pause that grows. What it had
done when the process died lies in its work folder, and the next start goes on from there.
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
from servicekit import backoff
from servicekit.database import run_in_transaction, utc_now
from servicekit.objects import ObjectStore

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.5
_LONGEST_PAUSE_S = 300.0


@dataclass(frozen=True)
class IndexTask:
    """An index to build."""

    version_digest: str
    model_version: str
    base_digest: str
    adapter_digest: str
    training_manifest_digest: str
    failures: int


class Indexer:
    """Builds what is wanted. Safe to run in several processes: the same inputs give an index twice, and one is
    noted."""

    def __init__(
        self,
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
        """Builds until `stop` is set; a batch that runs then is finished first. A database that is away is waited for."""
        failures = 0
        while not stop.is_set():
            try:
                task = run_in_transaction(self._engine, _next)
                if task is not None:
                    self._attempt(task, stop)
                failures = 0
            except Exception:
                failures += 1
                logger.exception("looking for indexes to build failed, trying again")
                backoff.wait(stop, failures)
                continue
            if task is None:
                stop.wait(_LOOK_EVERY_S)

    def _attempt(self, task: IndexTask, stop: threading.Event) -> None:
        started = time.monotonic()
        outcome = "ready"
        try:
            self._build(task, stop)
        except builder.Stopped:
            outcome = "stopped"
        except Exception as error:
            outcome = "failed"
            logger.exception("index of %s failed, again later", task.model_version)
            self._note(
                task,
                stage="failed",
                error=f"{type(error).__name__}: {error}",
                failures=task.failures + 1,
                not_before=utc_now() + timedelta(seconds=_pause_s(task.failures + 1)),
            )
        metrics.index_built(outcome, time.monotonic() - started)

    def _build(self, task: IndexTask, stop: threading.Event) -> None:
        self._note(task, stage="reading", error="", done=0)
        source = read_source(task.training_manifest_digest, self._objects)
        controls = sum(record.row.split == CONTROL for record in source.records)
        self._note(
            task,
            total=len(source.records),
            control_count=controls,
            record_count=len(source.records) - controls,
        )
        request = builder.BuildRequest(
            task.training_manifest_digest,
            source,
            self._parameters,
            self._models.compute,
            self._work_dir,
            self._batch_tokens,
        )
        digest = builder.build(
            request,
            self._gradients_of(source),
            self._models.layout(task.base_digest, task.adapter_digest),
            self._models.tokenizer(task.base_digest),
            self._objects,
            lambda stage, done, total, eta_s: self._progress(task, stage, done, eta_s),
            stop,
        )
        self._note(task, stage="ready", digest=digest, done=len(source.records), eta_s=0.0)
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
        self._note(task, **(values | {"done": done} if stage == "gradients" else values))

    def _note(self, task: IndexTask, **values: object) -> None:
        """Committed at once: progress is for people, and what matters (the digest) is one statement."""

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
        store.want_index(session, version, now)
        session.flush()
    found = store.next_index(session, now)
    if found is None:
        return None
    index, version = found
    return IndexTask(
        index.version_digest,
        version.name,
        version.base_digest,
        version.adapter_digest,
        version.training_manifest_digest,
        index.failures,
    )


def _pause_s(failures: int) -> float:
    """What failed for want of an object may be mended soon, what is inconsistent may never be: 1 s to 5 minutes."""
    return min(_LONGEST_PAUSE_S, 10 * backoff.delay_s(failures))
