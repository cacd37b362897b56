"""Scores answers, oldest first, as soon as their index is ready.

Scoring reads and computes outside any transaction. Then one transaction marks the answer as scored and writes record,
shares and event. A process that dies before the commit leaves no trace; after a restart the answer is scored again, with
the same seed. Two processes may score one answer; only one commits.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from datetime import timedelta

from cachetools import LRUCache
from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session

from attribution import convert, index, metrics, record, store
from attribution.answer import Answer
from attribution.events import attribution_scored
from attribution.record import Scored
from attribution.scoring import GradientSource, ScoringParameters, score, unattributable
from attribution.shares import PPM
from identity.digest import sha256_bytes
from servicekit import retries
from servicekit.database import reading, run_in_transaction, utc_now
from servicekit.database.watches import Changes
from servicekit.objects import ObjectStore
from servicekit.telemetry import traces as telemetry

logger = logging.getLogger(__name__)

_INDEXES_KEPT = 4


@dataclass(frozen=True, kw_only=True)
class ScoringTask:
    """An answer to score. `index_digest` is "" if a base model answered."""

    id: str
    answer: Answer
    index_digest: str
    failures: int
    traceparent: str = ""
    """The trace of the request that it belongs to."""


class ScoringWorker:
    """Scores answers one at a time."""

    def __init__(
        self,
        *,
        engine: Engine,
        objects: ObjectStore,
        models: GradientSource,
        parameters: ScoringParameters,
        changes: Changes,
    ) -> None:
        self._engine = engine
        self._objects = objects
        self._models = models
        self._parameters = parameters
        self._changes = changes
        self._indexes: LRUCache[str, index.AttributionIndex] = LRUCache(maxsize=_INDEXES_KEPT)

    def step(self) -> bool:
        """Scores the next answer. Returns False if none can be scored now."""
        with reading(self._engine) as session:
            task = _next(session)
            metrics.pending(session.scalar(select(func.count()).where(store.AnswerRow.pending)) or 0)
        if task is None:
            return False
        with telemetry.within(task.traceparent):
            self._work(task)
        return True

    def _work(self, task: ScoringTask) -> None:
        """Scores an answer, or postpones it."""
        started = time.monotonic()
        known = {"openledger.inference": task.answer.inference, "openledger.index": task.index_digest}
        try:
            with telemetry.tracer.start_as_current_span("score answer", attributes=known):
                scored = self._score(task)
                self._commit(task, scored)
                logger.info(
                    "answer scored",
                    extra={"inference": task.answer.inference, "unattributed_ppm": scored.unattributed_ppm},
                )
            metrics.answer_scored(scored.unattributed_ppm, time.monotonic() - started)
        except Exception:
            logger.exception(
                "scoring %s failed %d times, trying again later", task.answer.inference, task.failures + 1
            )
            metrics.scoring_failed()
            self._postpone(task)

    def _score(self, task: ScoringTask) -> Scored:
        if not task.index_digest:
            return Scored(unattributed_ppm=PPM, unattributed_reason=unattributable(task.answer, None))
        return score(
            task.answer,
            task.index_digest,
            self._index(task.index_digest),
            models=self._models,
            parameters=self._parameters,
        )

    def _index(self, digest: str) -> index.AttributionIndex:
        if digest not in self._indexes:
            self._indexes[digest] = index.load(digest, self._objects)
        return self._indexes[digest]

    def _commit(self, task: ScoringTask, scored: Scored) -> None:
        now = utc_now()
        data = record.to_bytes(task.answer, scored, now)
        check = scored.reliability.control_check_ppm if scored.reliability else 0
        finished = store.Finished(
            record=data,
            digest=sha256_bytes(data),
            score_time=now,
            unattributed_ppm=scored.unattributed_ppm,
            naive_control_ppm=scored.naive_control_ppm,
            control_check_ppm=check,
        )

        def write(session: Session) -> None:
            if not store.finish(session, task.id, finished):
                return  # another process was first: its record is valid
            session.add_all(_share_rows(task.id, data))
            attribution_scored(session, session.get_one(store.AnswerRow, task.id), now)
            self._changes.notify(session, task.id)

        run_in_transaction(self._engine, write)

    def _postpone(self, task: ScoringTask) -> None:
        """Delays the next attempt, so that other answers are scored first."""
        failures = task.failures + 1
        later = utc_now() + timedelta(seconds=retries.delay_s(failures))

        def write(session: Session) -> None:
            session.execute(
                update(store.AnswerRow)
                .where(store.AnswerRow.id == task.id)
                .values(failures=failures, not_before=later)
            )

        run_in_transaction(self._engine, write)


def _next(session: Session) -> ScoringTask | None:
    found = store.next_answer(session, utc_now())
    if found is None:
        return None
    row, index_digest = found
    return ScoringTask(
        id=row.id,
        answer=convert.to_answer(row.event),
        index_digest=index_digest,
        failures=row.failures,
        traceparent=row.traceparent,
    )


def _share_rows(answer_id: str, data: bytes) -> list[store.ShareRow]:
    """Returns the shares of a record, read from the record so that totals and records cannot disagree."""
    return [
        store.ShareRow(
            answer=answer_id,
            contributor=share["contributor"],
            ppm=share["ppm"],
            naive_ppm=share["naive_ppm"],
            lexical_ppm=share["lexical_ppm"],
            record_count=share["record_count"],
            cluster_count=share["cluster_count"],
        )
        for share in json.loads(data)["shares"]
    ]
