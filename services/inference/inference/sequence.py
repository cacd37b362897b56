"""One answer while it is generated."""

from __future__ import annotations

import time
from collections.abc import Collection
from datetime import UTC, datetime

from transformers import PreTrainedTokenizerBase

from inference.answer import Answer, Finish, Listener, Request
from inference.sampling import Choice, Sampler
from inference.text import StopText
from servicekit.errors import DomainError


class Sequence:
    """State of one answer. The engine's thread owns it; other threads only set `cancelled`."""

    def __init__(self, request: Request, listener: Listener, tokenizer: PreTrainedTokenizerBase) -> None:
        self.request = request
        self.listener = listener
        self.sampler = Sampler(request.sampling)
        self.slot = 0
        self.tokens: list[int] = []
        self.finish: Finish | None = None
        self.cancelled = False
        self.failed = False
        self._log_probabilities: list[float] = []
        self._text = StopText(tokenizer, request.sampling.stop)
        self._first_token_at: float | None = None

    def accept(self, choice: Choice, end_tokens: Collection[int]) -> None:
        """Appends the next token: sends the text that it completes, and sets `finish` if it is the last."""
        if self._first_token_at is None:
            self._first_token_at = time.monotonic()
        if choice.token in end_tokens:
            self._finish(Finish.STOP)
            return
        self.tokens.append(choice.token)
        self._log_probabilities.append(choice.log_probability)
        piece = self._text.push(choice.token)
        self._send(piece.text)
        if piece.stopped:
            self.finish = Finish.STOP
        elif len(self.tokens) >= self.request.sampling.max_output_tokens:
            self._finish(Finish.LENGTH)

    def fail(self, error: DomainError) -> None:
        """Reports to the listener, once, that there is no answer."""
        if not self.failed:
            self.failed = True
            self.listener.failed(error)

    def answer(self) -> Answer:
        """Returns the finished answer; `finish` must be set."""
        assert self.finish is not None
        now = time.monotonic()
        received = self.request.received_at
        return Answer(
            request=self.request,
            output_tokens=tuple(self.tokens),
            log_probabilities=tuple(self._log_probabilities),
            text=self._text.text,
            finish=self.finish,
            time_to_first_token_s=(self._first_token_at or now) - received,
            duration_s=now - received,
            finished=datetime.now(UTC),
        )

    def _finish(self, reason: Finish) -> None:
        piece = self._text.finish()
        self._send(piece.text)
        self.finish = Finish.STOP if piece.stopped else reason

    def _send(self, text: str) -> None:
        if text:
            self.listener.text(text)
