"""The scheduler: one thread that runs the model for many answers at once.

Questions wait in a bounded queue. Between two steps of the batch the thread drops rows that ended or were
cancelled, admits waiting questions whose adapter is resident, and asks for adapters that are not. A step
gives every row one token, whichever adapter it uses. Only this thread touches the model, so nothing in it is
locked.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from inference import metrics
from inference.adapters import Adapters, Fetch
from inference.answer import Finish, Listener, Question, Record
from inference.catalogue import Served
from inference.decoder import Decoder
from inference.row import Row
from inference.sampling import choose
from modelkit.adapter import InvalidAdapter
from servicekit.errors import (
    Cancelled,
    DeadlineExceeded,
    DomainError,
    FailedPrecondition,
    ResourceExhausted,
    Unavailable,
)

log = logging.getLogger(__name__)

_IDLE_S = 0.2
"""How late a waiting question's deadline may be noticed while nothing runs; arrivals wake the thread at once.
"""


@dataclass(frozen=True)
class Limits:
    """What the engine takes on."""

    max_rows: int
    """Answers computed at once."""
    max_queue: int
    """Questions that may wait; one more is refused."""
    max_prefill_tokens: int
    """Prompt tokens, padding included, read between two steps: bounds how long running answers pause."""


class Ticket:
    """A question that was taken. `cancel` may be called from any thread, any number of times."""

    def __init__(self, row: Row, wake: Callable[[], None]) -> None:
        self._row = row
        self._wake = wake

    def cancel(self) -> None:
        """Nobody waits any more: the row is freed before the next step."""
        self._row.cancelled = True
        self._wake()


class Engine:
    """Answers questions by one base model and its adapters.

    `fetch` reads an adapter by digest; `record` records a finished answer; `end_tokens` end an answer.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: PreTrainedTokenizerBase,
        end_tokens: Collection[int],
        slots: int,
        limits: Limits,
        fetch: Fetch,
        record: Record,
    ) -> None:
        self._decoder = decoder
        self._tokenizer = tokenizer
        self._end_tokens = frozenset(end_tokens)
        self._limits = limits
        self._record = record
        self._rows: list[Row] = []
        self._changed = threading.Condition()
        # Shared with other threads, under `_changed`:
        self._waiting: deque[Row] = deque()
        self._dirty = False
        self._stopping = False
        self._adapters = Adapters(decoder, slots, fetch, self._wake)
        self._answer_s = 1.0
        metrics.bounded("batch_rows", lambda: len(self._rows), limits.max_rows)
        metrics.bounded("question_queue", lambda: len(self._waiting), limits.max_queue)
        metrics.bounded("adapter_slots", lambda: len(self._adapters.residency), slots)

    def submit(self, question: Question, listener: Listener) -> Ticket:
        """Queues a question. Raises ResourceExhausted when the queue is full, Unavailable when stopping."""
        row = Row(question, listener, self._tokenizer)
        with self._changed:
            if self._stopping:
                raise Unavailable("STOPPING", "the service is stopping", retry_after_s=1)
            if len(self._waiting) >= self._limits.max_queue:
                turns = len(self._waiting) / self._limits.max_rows
                raise ResourceExhausted(
                    "QUEUE_FULL",
                    f"{len(self._waiting)} questions are waiting already",
                    retry_after_s=min(max(turns * self._answer_s, 1.0), 60.0),
                )
            self._waiting.append(row)
            metrics.queue_depth(len(self._waiting))
            self._notify()
        return Ticket(row, self._wake)

    def preload(self, served: Served) -> None:
        """Makes an adapter resident if a slot is free: a newly promoted version answers its first question at
        once.
        """
        if served.adapter_digest:
            self._adapters.preload(served.adapter_digest)

    @property
    def idle(self) -> bool:
        """True when nothing runs and nothing waits."""
        with self._changed:
            return not self._rows and not self._waiting

    def run(self, stop: threading.Event) -> None:
        """The thread's life. When `stop` is set, running answers end as cancelled and waiting ones are
        refused.
        """
        while not stop.is_set():
            try:
                self._turn()
            except Exception:
                log.exception("a step of the batch failed; its answers are given up")
                self._give_up()
        self._close()

    def _turn(self) -> None:
        self._take_adapters()
        self._drop_ended()
        self._admit(self._choose_waiting())
        self._drop_ended()  # a newcomer's first token may be its last
        if self._rows:
            self._step()
            return
        with self._changed:
            if not self._dirty:
                self._changed.wait(_IDLE_S)
            self._dirty = False

    def _take_adapters(self) -> None:
        """Fails those who wait for an adapter that cannot be had."""
        with self._changed:
            waiting = list(self._waiting)
        failures = self._adapters.take({row.question.served.adapter_digest for row in waiting})
        for digest, error in failures.items():
            log.warning("adapter %s cannot be loaded: %s", digest, error)
            for row in waiting:
                if row.question.served.adapter_digest == digest:
                    row.fail(_adapter_error(row.question.served.name, digest, error))

    def _choose_waiting(self) -> list[Row]:
        """Takes the questions to admit now off the queue, oldest first."""
        with self._changed:
            waiting = list(self._waiting)
        residency = self._adapters.residency
        chosen: list[Row] = []
        longest, blocked = 0, False
        for row in waiting:
            if (error := _ended_early(row)) is not None:
                row.fail(error)
            if row.failed or blocked or len(self._rows) + len(chosen) >= self._limits.max_rows:
                continue
            digest = row.question.served.adapter_digest
            # One that only lacks a slot is not overtaken, or busy adapters would keep it out for ever.
            blocked = not self._adapters.demand(digest)
            slot = residency.slot_of(digest)
            if slot is None:
                continue
            longest = max(longest, len(row.question.prompt_tokens))
            if chosen and longest * (len(chosen) + 1) > self._limits.max_prefill_tokens:
                break
            residency.pin(digest)
            row.slot = slot
            chosen.append(row)
        taken = set(map(id, chosen))
        with self._changed:
            self._waiting = deque(row for row in self._waiting if not (row.failed or id(row) in taken))
            metrics.queue_depth(len(self._waiting))
        return chosen

    def _admit(self, rows: list[Row]) -> None:
        if not rows:
            return
        self._rows += rows
        first = len(self._rows) - len(rows)
        started = time.monotonic()
        logits = self._decoder.admit([row.question.prompt_tokens for row in rows], [row.slot for row in rows])
        metrics.prefill(sum(len(row.question.prompt_tokens) for row in rows), time.monotonic() - started)
        self._accept(self._rows[first:], logits)

    def _step(self) -> None:
        started = time.monotonic()
        logits = self._decoder.step([row.tokens[-1] for row in self._rows])
        self._accept(self._rows, logits)
        metrics.step(len(self._rows), time.monotonic() - started)

    def _accept(self, rows: list[Row], logits: Tensor) -> None:
        for row, choice in zip(rows, choose(logits, [row.sampler for row in rows]), strict=True):
            row.accept(choice, self._end_tokens)

    def _drop_ended(self) -> None:
        """Records rows that ended and frees their places."""
        for row in self._rows:
            if row.finish is None and _ended_early(row) is not None:
                row.finish = Finish.CANCELLED
        ended = [row for row in self._rows if row.finish is not None]
        if ended:
            kept = [index for index, row in enumerate(self._rows) if row.finish is None]
            self._rows = [self._rows[index] for index in kept]
            self._decoder.keep(kept)
            for row in ended:
                self._end(row)

    def _end(self, row: Row) -> None:
        self._adapters.residency.unpin(row.question.served.adapter_digest)
        answer = row.answer()
        self._answer_s += 0.1 * (answer.duration_s - self._answer_s)
        metrics.answered(answer)
        self._record(answer, row.listener)

    def _give_up(self) -> None:
        """After a failed step: what was answered so far is recorded, and its listeners learn that it failed."""
        rows, self._rows = self._rows, []
        self._decoder.keep([])
        for row in rows:
            row.fail(Unavailable("STEP_FAILED", "the answer was interrupted", retry_after_s=1))
            if row.tokens:
                row.finish = row.finish or Finish.CANCELLED
                self._end(row)
            else:
                self._adapters.residency.unpin(row.question.served.adapter_digest)

    def _close(self) -> None:
        with self._changed:
            self._stopping = True
            waiting, self._waiting = list(self._waiting), deque()
        for row in waiting:
            row.fail(Unavailable("STOPPING", "the service is stopping", retry_after_s=1))
        for row in self._rows:
            row.cancelled = True
        self._drop_ended()
        self._adapters.close()

    def _wake(self) -> None:
        with self._changed:
            self._notify()

    def _notify(self) -> None:
        self._dirty = True
        self._changed.notify_all()


def _ended_early(row: Row) -> DomainError | None:
    """Why nobody waits for this answer any more."""
    if row.cancelled:
        return Cancelled()
    deadline = row.question.deadline
    if deadline is not None and time.monotonic() >= deadline:
        return DeadlineExceeded()
    return None


def _adapter_error(name: str, digest: str, error: BaseException) -> DomainError:
    if isinstance(error, InvalidAdapter):
        return FailedPrecondition("ADAPTER_INVALID", f"{name} cannot be served: {error}", subject=name)
    return Unavailable(
        "ADAPTER_UNAVAILABLE", f"{name}: adapter {digest} cannot be fetched now: {error}", retry_after_s=5
    )
