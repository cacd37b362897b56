"""Records finished answers before their askers hear of the end.

An answer becomes one event in the write-ahead log; a sender of its own brings it to the event log later. So
who was told "finished" has an answer that will be attributed and paid for, also when the process dies next;
and an answer whose process died before that was never finished for anyone. Disk writes happen on this thread,
not between two steps of the batch.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Collection
from typing import Any

from inference import metrics
from inference.answer import Answer, Listener
from inference.events import LeftOut, inference_completed
from servicekit import telemetry
from servicekit.errors import ResourceExhausted, Unavailable
from servicekit.events import Event

log = logging.getLogger(__name__)

_REFUSE_S = 5.0
"""How long new questions are refused after an answer could not be recorded; then one is tried again."""


class AnswerLog:
    """`append` writes an event or raises; `left_out` is what policy keeps out of events."""

    def __init__(
        self, append: Callable[[Event[Any]], None], left_out: Collection[LeftOut], compute: str
    ) -> None:
        self._append = append
        self._left_out = left_out
        self._compute = compute
        self._refuse_until = 0.0
        self._answers: queue.SimpleQueue[tuple[Answer, Listener] | None] = queue.SimpleQueue()

    def check(self) -> None:
        """Raises ResourceExhausted while answers cannot be recorded: work nobody will be paid for is not
        begun.
        """
        left_s = self._refuse_until - time.monotonic()
        if left_s > 0:
            raise ResourceExhausted(
                "ANSWER_LOG_FULL", "answers cannot be recorded now", retry_after_s=max(left_s, 1.0)
            )

    def record(self, answer: Answer, listener: Listener) -> None:
        """Queues an answer and returns at once; the listener hears its end when it is on disk."""
        self._answers.put((answer, listener))

    def close(self) -> None:
        """No answer follows: `run` returns after the last one."""
        self._answers.put(None)

    def run(self) -> None:
        """The thread's life, until `close` is called: after the engine has ended its last answer."""
        while (item := self._answers.get()) is not None:
            with telemetry.within(item[0].question.traceparent):
                self._record(*item)

    def _record(self, answer: Answer, listener: Listener) -> None:
        try:
            self._append(inference_completed(answer, self._left_out, self._compute))
        except Exception as error:
            self._refuse_until = time.monotonic() + _REFUSE_S
            metrics.unrecorded()
            log.exception("an answer could not be recorded", extra={"inference": answer.question.inference})
            listener.failed(Unavailable("ANSWER_NOT_RECORDED", f"the answer could not be recorded: {error}"))
        else:
            listener.finished(answer)
            log.info("answer recorded", extra=_told(answer))


def _told(answer: Answer) -> dict[str, Any]:
    """What the log may hold of an answer: nothing of what was asked or said, nor who asked."""
    return {
        "inference": answer.question.inference,
        "model": answer.question.served.name,
        "finish": answer.finish.value,
        "input_tokens": len(answer.question.prompt_tokens),
        "output_tokens": len(answer.output_tokens),
        "first_token_s": round(answer.time_to_first_token_s, 4),
        "duration_s": round(answer.duration_s, 4),
    }
