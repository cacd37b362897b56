"""A request on its way in and an answer on its way out."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from inference.catalogue import Served
from inference.sampling import Sampling
from servicekit.errors import DomainError


class Finish(enum.Enum):
    """Why an answer ended."""

    STOP = "stop"
    """End-of-text token or a stop string."""
    LENGTH = "length"
    """The limit of output tokens was reached."""
    CANCELLED = "cancelled"
    """The client left, its deadline passed or the service stopped."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A prompt, the model that answers it, and who sent it. Times are of `time.monotonic`, except `received`."""

    inference: str
    """`inferences/{ulid}`."""
    served: Served
    prompt: str
    prompt_tokens: tuple[int, ...]
    sampling: Sampling
    principal: str
    request_id: str = ""
    traceparent: str | None = None
    """The caller's trace (W3C), which the answer's event continues."""
    deadline: float | None = None
    received: datetime = field(default_factory=lambda: datetime.now(UTC))
    received_at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A finished answer: complete, or the part that existed when it was cancelled."""

    request: Request
    output_tokens: tuple[int, ...]
    """Without the end-of-text token. May hold tokens of a stop string that `text` ends before."""
    log_probabilities: tuple[float, ...]
    """Of each output token under the model, in nats."""
    text: str
    finish: Finish
    time_to_first_token_s: float
    duration_s: float
    finished: datetime


class Listener(Protocol):
    """What waits for an answer. Called from other threads: must return at once and never raise."""

    def text(self, piece: str) -> None:
        """The next characters."""

    def finished(self, answer: Answer) -> None:
        """The end: the answer is recorded durably."""

    def failed(self, error: DomainError) -> None:
        """The end: there is no answer, or it could not be recorded."""


Record = Callable[[Answer, Listener], None]
"""Takes a finished answer, returns at once, and calls the listener when the answer is durable."""
