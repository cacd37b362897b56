"""The scheduler: one thread that runs the model for many answers at once.

Requests wait in a bounded queue. Between two steps of the batch the thread removes sequences that ended or were cancelled,
admits waiting requests whose adapter is loaded, and requests adapters that are not. A step gives every sequence one token,
whichever adapter it uses. Only this thread touches the model, so the model needs no lock.
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
from inference.answer import Finish, Listener, Record, Request
from inference.catalogue import Served
from inference.decoder import Decoder
from inference.sampling import choose
from inference.sequence import Sequence
from modelkit.adapter import InvalidAdapter
from servicekit.errors import (
    Cancelled,
    DeadlineExceeded,
    DomainError,
    FailedPrecondition,
    ResourceExhausted,
    Unavailable,
)
from servicekit.heartbeats import Heartbeat

log = logging.getLogger(__name__)

_IDLE_S = 0.2
"""How late a waiting request's deadline may be noticed while nothing runs; arrivals wake the thread at once."""


@dataclass(frozen=True)
class Limits:
    """Bounds of the engine."""

    max_sequences: int
    """Answers computed at once."""
    max_queue: int
    """Requests that may wait; a further one is refused."""
    max_prefill_tokens: int
    """Prompt tokens, padding included, processed between two steps: bounds how long running answers pause."""


class RequestHandle:
    """An accepted request. `cancel` may be called from any thread, any number of times."""

    def __init__(self, sequence: Sequence, wake: Callable[[], None]) -> None:
        self._row = sequence
        self._wake = wake

    def cancel(self) -> None:
        """Frees the sequence before the next step."""
        self._row.cancelled = True
        self._wake()


class Engine:
    """Answers requests with one base model and its adapters.

    `fetch` reads an adapter by digest; `record` records a finished answer; `end_tokens` end an answer.
    """

    def __init__(
        self,
        *,
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
        self._sequences: list[Sequence] = []
        self._changed = threading.Condition()
        # Shared with other threads, under `_changed`:
        self._waiting: deque[Sequence] = deque()
        self._dirty = False
        self._stopping = False
        self._adapters = Adapters(decoder, slots, fetch, self._wake)
        self._answer_s = 1.0
        metrics.bounded("batch_sequences", lambda: len(self._sequences), limits.max_sequences)
        metrics.bounded("request_queue", lambda: len(self._waiting), limits.max_queue)
        metrics.bounded("adapter_slots", lambda: len(self._adapters.residency), slots)

    def submit(self, request: Request, listener: Listener) -> RequestHandle:
        """Queues a request. Raises ResourceExhausted when the queue is full, Unavailable when stopping."""
        sequence = Sequence(request, listener, self._tokenizer)
        with self._changed:
            if self._stopping:
                raise Unavailable("STOPPING", "the service is stopping", retry_after_s=1)
            if len(self._waiting) >= self._limits.max_queue:
                turns = len(self._waiting) / self._limits.max_sequences
                raise ResourceExhausted(
                    "QUEUE_FULL",
                    f"{len(self._waiting)} requests are waiting",
                    retry_after_s=min(max(turns * self._answer_s, 1.0), 60.0),
                )
            self._waiting.append(sequence)
            metrics.queue_depth(len(self._waiting))
            self._notify()
        return RequestHandle(sequence, self._wake)

    def preload(self, served: Served) -> None:
        """Loads an adapter if a slot is free, so that a newly promoted version answers its first request at once."""
        if served.adapter_digest:
            self._adapters.preload(served.adapter_digest)

    @property
    def idle(self) -> bool:
        """True when nothing runs and nothing waits."""
        with self._changed:
            return not self._sequences and not self._waiting

    def run(self, stop: threading.Event) -> None:
        """Runs until `stop` is set; then running answers end as cancelled and waiting requests are refused."""
        heartbeat = Heartbeat("engine")
        while not stop.is_set():
            try:
                with heartbeat.step():
                    self._turn()
                heartbeat.succeeded()
            except Exception as error:
                heartbeat.failed(error)
                log.exception("a step of the batch failed; its answers end")
                self._give_up()
        heartbeat.close()
        self._close()

    def _turn(self) -> None:
        self._take_adapters()
        self._drop_ended()
        self._admit(self._choose_waiting())
        self._drop_ended()  # a newcomer's first token may be its last
        if self._sequences:
            self._step()
            return
        with self._changed:
            if not self._dirty:
                self._changed.wait(_IDLE_S)
            self._dirty = False

    def _take_adapters(self) -> None:
        """Fails requests whose adapter cannot be loaded."""
        with self._changed:
            waiting = list(self._waiting)
        failures = self._adapters.take({sequence.request.served.adapter_digest for sequence in waiting})
        for digest, error in failures.items():
            log.warning("adapter %s cannot be loaded: %s", digest, error)
            for sequence in waiting:
                if sequence.request.served.adapter_digest == digest:
                    sequence.fail(_adapter_error(sequence.request.served.name, digest, error))

    def _choose_waiting(self) -> list[Sequence]:
        """Removes the requests to admit now from the queue, oldest first."""
        with self._changed:
            waiting = list(self._waiting)
        residency = self._adapters.residency
        chosen: list[Sequence] = []
        longest, blocked = 0, False
        for sequence in waiting:
            if (error := _ended_early(sequence)) is not None:
                sequence.fail(error)
            if sequence.failed or blocked or len(self._sequences) + len(chosen) >= self._limits.max_sequences:
                continue
            digest = sequence.request.served.adapter_digest
            # One that only lacks a slot is not overtaken, or busy adapters would exclude it forever.
            blocked = not self._adapters.demand(digest)
            slot = residency.slot_of(digest)
            if slot is None:
                continue
            longest = max(longest, len(sequence.request.prompt_tokens))
            if chosen and longest * (len(chosen) + 1) > self._limits.max_prefill_tokens:
                break
            residency.pin(digest)
            sequence.slot = slot
            chosen.append(sequence)
        taken = set(map(id, chosen))
        with self._changed:
            self._waiting = deque(
                sequence for sequence in self._waiting if not (sequence.failed or id(sequence) in taken)
            )
            metrics.queue_depth(len(self._waiting))
        return chosen

    def _admit(self, sequences: list[Sequence]) -> None:
        if not sequences:
            return
        self._sequences += sequences
        first = len(self._sequences) - len(sequences)
        started = time.monotonic()
        prompts = [sequence.request.prompt_tokens for sequence in sequences]
        logits = self._decoder.admit(prompts, [sequence.slot for sequence in sequences])
        metrics.prefill(sum(map(len, prompts)), time.monotonic() - started)
        self._accept(self._sequences[first:], logits)

    def _step(self) -> None:
        started = time.monotonic()
        logits = self._decoder.step([sequence.tokens[-1] for sequence in self._sequences])
        self._accept(self._sequences, logits)
        metrics.step(len(self._sequences), time.monotonic() - started)

    def _accept(self, sequences: list[Sequence], logits: Tensor) -> None:
        for sequence, choice in zip(
            sequences, choose(logits, [sequence.sampler for sequence in sequences]), strict=True
        ):
            sequence.accept(choice, self._end_tokens)

    def _drop_ended(self) -> None:
        """Records sequences that ended and removes them from the batch."""
        for sequence in self._sequences:
            if sequence.finish is None and _ended_early(sequence) is not None:
                sequence.finish = Finish.CANCELLED
        ended = [sequence for sequence in self._sequences if sequence.finish is not None]
        if ended:
            kept = [index for index, sequence in enumerate(self._sequences) if sequence.finish is None]
            self._sequences = [self._sequences[index] for index in kept]
            self._decoder.keep(kept)
            for sequence in ended:
                self._end(sequence)

    def _end(self, sequence: Sequence) -> None:
        self._adapters.residency.unpin(sequence.request.served.adapter_digest)
        answer = sequence.answer()
        self._answer_s += 0.1 * (answer.duration_s - self._answer_s)
        metrics.answered(answer)
        self._record(answer, sequence.listener)

    def _give_up(self) -> None:
        """Ends all answers after a failed step: records what exists of them, and reports the failure to their listeners."""
        sequences, self._sequences = self._sequences, []
        self._decoder.keep([])
        for sequence in sequences:
            sequence.fail(Unavailable("STEP_FAILED", "the answer was interrupted", retry_after_s=1))
            if sequence.tokens:
                sequence.finish = sequence.finish or Finish.CANCELLED
                self._end(sequence)
            else:
                self._adapters.residency.unpin(sequence.request.served.adapter_digest)

    def _close(self) -> None:
        with self._changed:
            self._stopping = True
            waiting, self._waiting = list(self._waiting), deque()
        for sequence in waiting:
            sequence.fail(Unavailable("STOPPING", "the service is stopping", retry_after_s=1))
        for sequence in self._sequences:
            sequence.cancelled = True
        self._drop_ended()
        self._adapters.close()

    def _wake(self) -> None:
        with self._changed:
            self._notify()

    def _notify(self) -> None:
        self._dirty = True
        self._changed.notify_all()


def _ended_early(sequence: Sequence) -> DomainError | None:
    """Returns why this answer is no longer needed, if so."""
    if sequence.cancelled:
        return Cancelled()
    deadline = sequence.request.deadline
    if deadline is not None and time.monotonic() >= deadline:
        return DeadlineExceeded()
    return None


def _adapter_error(name: str, digest: str, error: BaseException) -> DomainError:
    if isinstance(error, InvalidAdapter):
        return FailedPrecondition("ADAPTER_INVALID", f"{name} cannot be served: {error}", subject=name)
    return Unavailable(
        "ADAPTER_UNAVAILABLE", f"{name}: adapter {digest} cannot be fetched now: {error}", retry_after_s=5
    )
