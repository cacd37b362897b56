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
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from inference import metrics
from inference.answer import Finish, Listener, Question, Record
from inference.catalogue import Served
from inference.decoder import Decoder
from inference.residency import Residency
from inference.row import Row
from inference.sampling import choose
from modelkit.adapter import Adapter, InvalidAdapter
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

_FETCHERS = 4
"""Adapters fetched at once: one that comes slowly must not hold up the others."""


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

    `fetch` reads an adapter by digest (slow, called on a thread of its own); `record` makes a finished answer
    durable; `end_tokens` end an answer.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: PreTrainedTokenizerBase,
        end_tokens: Collection[int],
        slots: int,
        limits: Limits,
        fetch: Callable[[str], Adapter],
        record: Record,
    ) -> None:
        self._decoder = decoder
        self._tokenizer = tokenizer
        self._end_tokens = frozenset(end_tokens)
        self._limits = limits
        self._fetch = fetch
        self._record = record
        self._residency = Residency(slots)
        self._rows: list[Row] = []
        self._changed = threading.Condition()
        # Shared with other threads, under `_changed`:
        self._waiting: deque[Row] = deque()
        self._fetched: deque[tuple[str, Future[Adapter]]] = deque()
        self._preloads: deque[str] = deque()
        self._dirty = False
        self._stopping = False
        # Adapters on their way; a fetched one that found no slot stays here:
        self._fetching: set[str] = set()
        self._ready: dict[str, Adapter] = {}
        self._answer_s = 1.0

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
            with self._changed:
                self._preloads.append(served.adapter_digest)
                self._notify()

    @property
    def idle(self) -> bool:
        """True when nothing runs and nothing waits."""
        with self._changed:
            return not self._rows and not self._waiting

    def run(self, stop: threading.Event) -> None:
        """The thread's life. When `stop` is set, running answers end as cancelled and waiting ones are
        refused.
        """
        fetcher = ThreadPoolExecutor(_FETCHERS, thread_name_prefix="adapter-fetch")
        while not stop.is_set():
            try:
                self._turn(fetcher)
            except Exception:
                log.exception("a step of the batch failed; its answers are given up")
                self._give_up()
        self._close()
        fetcher.shutdown(wait=False, cancel_futures=True)

    def _turn(self, fetcher: ThreadPoolExecutor) -> None:
        self._take_adapters(fetcher)
        self._drop_ended()
        self._admit(self._choose_waiting(fetcher))
        self._drop_ended()  # a newcomer's first token may be its last
        if self._rows:
            self._step()
            return
        with self._changed:
            if not self._dirty:
                self._changed.wait(_IDLE_S)
            self._dirty = False

    # ---- waiting questions ---------------------------------------------------------------------------------

    def _choose_waiting(self, fetcher: ThreadPoolExecutor) -> list[Row]:
        """Takes the questions to admit now off the queue, oldest first."""
        with self._changed:
            waiting = list(self._waiting)
        chosen: list[Row] = []
        longest, blocked = 0, False
        for row in waiting:
            if (error := _ended_early(row)) is not None:
                row.fail(error)
            if row.failed or blocked or len(self._rows) + len(chosen) >= self._limits.max_rows:
                continue
            digest = row.question.served.adapter_digest
            if self._residency.slot_of(digest) is None:
                # One that only lacks a slot is not overtaken, or busy adapters would keep it out for ever.
                blocked = not self._demand(digest, fetcher)
                if self._residency.slot_of(digest) is None:
                    continue
            longest = max(longest, len(row.question.prompt_tokens))
            if chosen and longest * (len(chosen) + 1) > self._limits.max_prefill_tokens:
                break
            self._residency.pin(digest)
            row.slot = self._residency.slot_of(digest) or 0
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

    # ---- adapters ------------------------------------------------------------------------------------------

    def _demand(self, digest: str, fetcher: ThreadPoolExecutor) -> bool:
        """Gets an adapter resident, now or later. False when it is at hand but every slot is pinned."""
        if digest in self._ready:
            return self._install(digest, evict=True)
        if digest not in self._fetching:
            self._fetching.add(digest)
            fetcher.submit(self._fetch, digest).add_done_callback(lambda done: self._arrived(digest, done))
        return True

    def _arrived(self, digest: str, done: Future[Adapter]) -> None:
        with self._changed:
            self._fetched.append((digest, done))
            self._notify()

    def _take_adapters(self, fetcher: ThreadPoolExecutor) -> None:
        with self._changed:
            fetched, preloads = list(self._fetched), list(self._preloads)
            self._fetched.clear()
            self._preloads.clear()
        for digest, done in fetched:
            self._fetching.discard(digest)
            if (error := done.exception()) is not None:
                self._refuse(digest, error)
                continue
            self._ready[digest] = done.result()
            self._install(digest, evict=False)
        for digest in preloads:
            if self._residency.slot_of(digest) is None:
                self._demand(digest, fetcher)
        self._forget_unwanted()

    def _install(self, digest: str, evict: bool) -> bool:
        slot = self._residency.place(digest, evict)
        if slot is None:
            return False
        try:
            self._decoder.load(slot, self._ready.pop(digest))
        except InvalidAdapter as error:
            self._residency.remove(digest)
            self._refuse(digest, error)
        metrics.adapters_loaded(len(self._residency))
        return True

    def _refuse(self, digest: str, error: BaseException) -> None:
        """Fails everyone who waits for an adapter that cannot be had. The next question tries again."""
        with self._changed:
            rows = [row for row in self._waiting if row.question.served.adapter_digest == digest]
        log.warning("adapter %s cannot be loaded: %s", digest, error)
        for row in rows:
            row.fail(_adapter_error(row.question.served.name, digest, error))

    def _forget_unwanted(self) -> None:
        """Frees fetched adapters that found no slot and nobody waits for."""
        if self._ready:
            with self._changed:
                wanted = {row.question.served.adapter_digest for row in self._waiting}
            self._ready = {digest: adapter for digest, adapter in self._ready.items() if digest in wanted}

    # ---- the batch -----------------------------------------------------------------------------------------

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
        self._residency.unpin(row.question.served.adapter_digest)
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
                self._residency.unpin(row.question.served.adapter_digest)

    def _close(self) -> None:
        with self._changed:
            self._stopping = True
            waiting, self._waiting = list(self._waiting), deque()
        for row in waiting:
            row.fail(Unavailable("STOPPING", "the service is stopping", retry_after_s=1))
        for row in self._rows:
            row.cancelled = True
        self._drop_ended()

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
