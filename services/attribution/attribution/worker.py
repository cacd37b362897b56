"""The thread that scores answers: the oldest of those whose index is there.

Scoring reads and computes outside any transaction; then one transaction turns the answer from pending to scored and
writes record, shares and event. A process that dies before its commit has done nothing, and the next start scores the
answer again, with the same seed. Two processes may score one answer; one commits.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta

from openledger.inference.v1 import inference_pb2
from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session

from attribution import index, metrics, record, store
from attribution.answer import Answer
from attribution.events import attribution_scored
from attribution.record import Scored
from attribution.scoring import GradientSource, ScoringParameters, score, unattributable
from attribution.shares import PPM
from identity.digest import sha256_bytes
from servicekit import backoff, telemetry
from servicekit.database import reading, run_in_transaction, utc_now
from servicekit.objects import ObjectStore

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.25
_INDEXES_KEPT = 4


@dataclass(frozen=True)
class ScoringTask:
    """An answer to score. `index_digest` is "" for a base model's."""

    id: str
    answer: Answer
    index_digest: str
    failures: int
    traceparent: str = ""
    """The trace it was taken in by."""


class ScoringWorker:
    """Scores until it is stopped."""

    def __init__(
        self, engine: Engine, objects: ObjectStore, models: GradientSource, parameters: ScoringParameters
    ) -> None:
        self._engine = engine
        self._objects = objects
        self._models = models
        self._parameters = parameters
        self._indexes: OrderedDict[str, index.AttributionIndex] = OrderedDict()

    def run(self, stop: threading.Event) -> None:
        """Scores until `stop` is set; the answer that is being scored is finished first. A database that is away is
        waited for."""
        failures = 0
        while not stop.is_set():
            try:
                found = self.step()
                failures = 0
            except Exception:
                failures += 1
                logger.exception("looking for answers to score failed, trying again")
                backoff.wait(stop, failures)
                continue
            if not found:
                stop.wait(_LOOK_EVERY_S)

    def step(self) -> bool:
        """Scores the next answer; False when there is none to score now."""
        with reading(self._engine) as session:
            task = _next(session)
            metrics.pending(session.scalar(select(func.count()).where(store.AnswerRow.pending)) or 0)
        if task is None:
            return False
        with telemetry.within(task.traceparent):
            self._work(task)
        return True

    def _work(self, task: ScoringTask) -> None:
        """Scores an answer, or puts it off."""
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
                "scoring %s failed %d times, again later", task.answer.inference, task.failures + 1
            )
            metrics.scoring_failed()
            self._postpone(task)

    def _score(self, task: ScoringTask) -> Scored:
        if not task.index_digest:
            return Scored(PPM, unattributable(task.answer, None))
        return score(
            task.answer, task.index_digest, self._index(task.index_digest), self._models, self._parameters
        )

    def _index(self, digest: str) -> index.AttributionIndex:
        if digest not in self._indexes:
            self._indexes[digest] = index.load(digest, self._objects)
            while len(self._indexes) > _INDEXES_KEPT:
                self._indexes.popitem(last=False)
        self._indexes.move_to_end(digest)
        return self._indexes[digest]

    def _commit(self, task: ScoringTask, scored: Scored) -> None:
        now = utc_now()
        data = record.to_bytes(task.answer, scored, now)
        check = scored.reliability.control_check_ppm if scored.reliability else 0
        finished = store.Finished(
            data, sha256_bytes(data), now, scored.unattributed_ppm, scored.naive_control_ppm, check
        )

        def write(session: Session) -> None:
            if not store.finish(session, task.id, finished):
                return  # another process was first: its record stands
            session.add_all(_share_rows(task.id, data))
            attribution_scored(session, session.get_one(store.AnswerRow, task.id), now)

        run_in_transaction(self._engine, write)

    def _postpone(self, task: ScoringTask) -> None:
        """Lets others go first; the answer keeps its place among those that are due."""
        failures = task.failures + 1
        later = utc_now() + timedelta(seconds=backoff.delay_s(failures))

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
    answer = Answer.from_event(inference_pb2.InferenceCompleted.FromString(row.event))
    return ScoringTask(row.id, answer, index_digest, row.failures, row.traceparent)


def _share_rows(answer_id: str, data: bytes) -> list[store.ShareRow]:
    """From the record itself, so that totals and records cannot disagree."""
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
