"""Takes questions from both doors (gRPC, HTTP), and gives each a stream of its answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from transformers import PreTrainedTokenizerBase

from inference import tracing
from inference.answer import Answer, Question
from inference.catalogue import Catalogue, Served
from inference.engine import Engine, Ticket
from inference.sampling import Sampling
from servicekit.database import ulid
from servicekit.errors import DomainError, InvalidArgument


class AnswerStream:
    """An answer that is being made: iterate it for text, then read `answer`.

    Whoever stops iterating must call `close`, or the answer is computed for nobody. What waits in it is
    bounded by the most output tokens of its question.
    """

    def __init__(self, question: Question) -> None:
        self.question = question
        self.answer: Answer | None = None
        self._loop = asyncio.get_running_loop()
        self._parts: asyncio.Queue[str | Answer | DomainError] = asyncio.Queue()
        self._ticket: Ticket | None = None

    def start(self, engine: Engine) -> None:
        """Queues the question. Errors as `Engine.submit`."""
        self._ticket = engine.submit(self.question, self)

    def close(self) -> None:
        """Nobody listens any more; a running answer stops at once. Harmless when it has ended."""
        if self._ticket is not None and self.answer is None:
            self._ticket.cancel()

    async def __aiter__(self) -> AsyncIterator[str]:
        """Pieces of text until the end. Raises DomainError when there is no answer."""
        while True:
            part = await self._parts.get()
            if isinstance(part, str):
                yield part
            elif isinstance(part, Answer):
                self.answer = part
                tracing.answered(part)
                return
            else:
                raise part

    # Listener, called by the engine's and the recorder's threads:

    def text(self, piece: str) -> None:
        self._tell(piece)

    def finished(self, answer: Answer) -> None:
        self._tell(answer)

    def failed(self, error: DomainError) -> None:
        self._tell(error)

    def _tell(self, part: str | Answer | DomainError) -> None:
        with suppress(RuntimeError):  # the loop is closed: the process is stopping, and nobody listens
            self._loop.call_soon_threadsafe(self._parts.put_nowait, part)


class Reception:
    """What a question goes through before it waits: its model is resolved, its prompt tokenised and measured."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: PreTrainedTokenizerBase,
        max_context_tokens: int,
        catalogue: Callable[[], Catalogue],
        check: Callable[[], None],
    ) -> None:
        """`check` raises while no question should be taken."""
        self._engine = engine
        self._tokenizer = tokenizer
        self._max_context_tokens = max_context_tokens
        self._catalogue = catalogue
        self._check = check

    def served(self) -> list[Served]:
        """What can be asked now."""
        return self._catalogue().served()

    async def ask(
        self,
        model: str,
        prompt: str,
        sampling: Sampling,
        principal: str,
        request_id: str = "",
        timeout_s: float | None = None,
        traceparent: str | None = None,
    ) -> AnswerStream:
        """Queues a question.

        Raises NotFound and FailedPrecondition for the model, InvalidArgument for a prompt that does not fit
        the context together with its answer, ResourceExhausted when too many wait or answers cannot be
        recorded.
        """
        now = time.monotonic()
        served = self._catalogue().resolve(model)
        self._check()
        tokens = await asyncio.to_thread(self._encode, prompt)
        if len(tokens) + sampling.max_output_tokens > self._max_context_tokens:
            raise InvalidArgument(
                "prompt",
                "context",
                f"{len(tokens)} prompt tokens and up to {sampling.max_output_tokens} output tokens do not fit"
                f" the model's context of {self._max_context_tokens}",
                len(tokens),
            )
        question = Question(
            inference=f"inferences/{ulid()}",
            served=served,
            prompt=prompt,
            prompt_tokens=tokens,
            sampling=sampling,
            principal=principal,
            request_id=request_id,
            traceparent=traceparent,
            deadline=None if timeout_s is None else now + timeout_s,
            received_at=now,
        )
        tracing.asked(question)
        stream = AnswerStream(question)
        stream.start(self._engine)
        return stream

    def render_chat(self, messages: list[dict[str, str]]) -> str:
        """The prompt of a conversation by the base model's own chat template, ready for its answer.

        Raises InvalidArgument naming the message when its text holds the tokenizer's control tokens, by which
        one participant could speak as another.
        """
        control = [str(token) for token in self._tokenizer.all_special_tokens]
        for index, message in enumerate(messages):
            if found := [token for token in control if token in message["content"]]:
                raise InvalidArgument(
                    f"messages[{index}].content", "no_control_tokens", f"must not contain {found[0]!r}"
                )
        if self._tokenizer.chat_template is None:
            raise InvalidArgument(
                "messages", "chat_template", "this base model has no chat template; use a prompt"
            )
        text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert isinstance(text, str)
        return text

    def _encode(self, prompt: str) -> tuple[int, ...]:
        tokens: list[int] = self._tokenizer.encode(prompt, add_special_tokens=False)
        if not tokens:
            raise InvalidArgument("prompt", "min_tokens", "must hold at least one token", prompt)
        return tuple(tokens)
