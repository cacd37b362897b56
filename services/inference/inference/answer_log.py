"""Makes finished answers durable before their askers hear of the end.

An answer becomes one event in the write-ahead log; a sender of its own brings it to the event log later. So who
was told "finished" has an answer that will be attributed and paid for, whatever dies next; and an answer whose
process died before that was never finished for anyone. Disk writes happen on this thread, not between two steps
of the batch.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Collection
from typing import Any

from inference import metrics
from inference.answer import Answer, Listener
from inference.events import LeftOut, inference_completed
from servicekit.errors import Unavailable
from servicekit.events import Event

log = logging.getLogger(__name__)


class AnswerLog:
    """`append` writes an event durably or raises OSError; `left_out` is what policy keeps out of events."""

    def __init__(
        self, append: Callable[[Event[Any]], None], left_out: Collection[LeftOut], compute: str
    ) -> None:
        self._append = append
        self._left_out = left_out
        self._compute = compute
        self._answers: queue.SimpleQueue[tuple[Answer, Listener] | None] = queue.SimpleQueue()

    def record(self, answer: Answer, listener: Listener) -> None:
        """Queues an answer and returns at once; the listener hears its end when it is on disk."""
        self._answers.put((answer, listener))

    def close(self) -> None:
        """No answer follows: `run` returns after the last one."""
        self._answers.put(None)

    def run(self, stop: threading.Event) -> None:
        """The thread's life. Not `stop` ends it but `close`, called when the engine has ended its last answer."""
        while (item := self._answers.get()) is not None:
            answer, listener = item
            try:
                self._append(inference_completed(answer, self._left_out, self._compute))
            except Exception as error:
                metrics.unrecorded()
                log.exception(
                    "an answer could not be recorded", extra={"inference": answer.question.inference}
                )
                listener.failed(
                    Unavailable("ANSWER_NOT_RECORDED", f"the answer could not be recorded: {error}")
                )
            else:
                listener.finished(answer)
