"""Records finished answers before their clients receive the end.

An answer becomes one event in the write-ahead log; a sender thread brings it to the event log later. So a client that
received "finished" has an answer that will be attributed and paid for, even if the process dies next. An answer whose
process died before that was never finished for its client. Disk writes happen on this thread, not between two steps of
the batch.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Collection
from typing import Any

from inference import metrics
from inference.answer import Answer, Listener
from inference.events import inference_completed
from inference.settings import LeftOut
from servicekit.errors import ResourceExhausted, Unavailable
from servicekit.eventlog.events import Event
from servicekit.heartbeats import Heartbeat
from servicekit.telemetry import traces as telemetry

log = logging.getLogger(__name__)

_REFUSE_S = 5.0
"""How long new requests are refused after an answer could not be recorded. Then one is accepted as a trial."""


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
        """Raises ResourceExhausted while answers cannot be recorded: unpaid work is not started."""
        left_s = self._refuse_until - time.monotonic()
        if left_s > 0:
            raise ResourceExhausted(
                "ANSWER_LOG_FULL", "answers cannot be recorded now", retry_after_s=max(left_s, 1.0)
            )

    def record(self, answer: Answer, listener: Listener) -> None:
        """Queues an answer and returns at once; the listener receives the end once the answer is on disk."""
        self._answers.put((answer, listener))

    def close(self) -> None:
        """Lets `run` return after the last queued answer."""
        self._answers.put(None)

    def run(self) -> None:
        """Records answers until `close` is called, after the engine has ended its last answer."""
        heartbeat = Heartbeat("answer-log")
        while (item := self._answers.get()) is not None:  # waits: for work; `close` ends it
            with heartbeat.step(), telemetry.within(item[0].request.traceparent):
                self._record(*item)
        heartbeat.close()

    def _record(self, answer: Answer, listener: Listener) -> None:
        try:
            self._append(inference_completed(answer, self._left_out, self._compute))
        except Exception as error:
            self._refuse_until = time.monotonic() + _REFUSE_S
            metrics.unrecorded()
            log.exception("an answer could not be recorded", extra={"inference": answer.request.inference})
            listener.failed(Unavailable("ANSWER_NOT_RECORDED", f"the answer could not be recorded: {error}"))
        else:
            listener.finished(answer)
            log.info("answer recorded", extra=_logged(answer))


def _logged(answer: Answer) -> dict[str, Any]:
    """Returns what the log may hold of an answer: no prompt, no output, no principal."""
    return {
        "inference": answer.request.inference,
        "model": answer.request.served.name,
        "finish": answer.finish.value,
        "input_tokens": len(answer.request.prompt_tokens),
        "output_tokens": len(answer.output_tokens),
        "first_token_s": round(answer.time_to_first_token_s, 4),
        "duration_s": round(answer.duration_s, 4),
    }
