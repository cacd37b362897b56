"""Admits requests of both APIs (gRPC, HTTP) and returns a stream of each answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from transformers import PreTrainedTokenizerBase

from inference import tracing
from inference.answer import Answer, Request
from inference.catalogue import Catalogue, Served
from inference.engine import Engine, RequestHandle
from inference.sampling import Sampling
from modelkit.plain_text import chat, token_ids
from servicekit.database import ulid
from servicekit.errors import DomainError, InvalidArgument


class AnswerStream:
    """An answer that is being generated: iterate it for text, then read `answer`.

    A caller that stops iterating must call `close`, or the engine continues to generate. The text that waits in it is
    bounded by the output tokens of its request.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.answer: Answer | None = None
        self._loop = asyncio.get_running_loop()
        self._parts: asyncio.Queue[str | Answer | DomainError] = asyncio.Queue()
        self._handle: RequestHandle | None = None

    def start(self, engine: Engine) -> None:
        """Queues the request. Errors as `Engine.submit`."""
        self._handle = engine.submit(self.request, self)

    def close(self) -> None:
        """Stops a running answer at once. Has no effect on one that has ended."""
        if self._handle is not None and self.answer is None:
            self._handle.cancel()

    async def __aiter__(self) -> AsyncIterator[str]:
        """Yields text until the end. Raises DomainError if there is no answer."""
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

    # Listener, called by the threads of the engine and of the answer log:

    def text(self, piece: str) -> None:
        self._put(piece)

    def finished(self, answer: Answer) -> None:
        self._put(answer)

    def failed(self, error: DomainError) -> None:
        self._put(error)

    def _put(self, part: str | Answer | DomainError) -> None:
        with suppress(RuntimeError):  # the loop is closed: the process is stopping
            self._loop.call_soon_threadsafe(self._parts.put_nowait, part)


class Frontend:
    """Resolves the model of a request, tokenises and measures its prompt, and queues it."""

    def __init__(
        self,
        *,
        engine: Engine,
        tokenizer: PreTrainedTokenizerBase,
        max_context_tokens: int,
        catalogue: Callable[[], Catalogue],
        check: Callable[[], None],
    ) -> None:
        """`check` raises while no request should be accepted."""
        self._engine = engine
        self._tokenizer = tokenizer
        self._max_context_tokens = max_context_tokens
        self._catalogue = catalogue
        self._check = check

    def served(self) -> list[Served]:
        """Returns the models that are served now."""
        return self._catalogue().served()

    async def submit(
        self,
        *,
        model: str,
        prompt: str,
        tokens: tuple[int, ...] = (),
        sampling: Sampling,
        principal: str,
        request_id: str = "",
        timeout_s: float | None = None,
        traceparent: str | None = None,
    ) -> AnswerStream:
        """Queues a request. A prompt is text: it has no control tokens, unless `tokens` come with it, from `render_chat`.

        Raises NotFound and FailedPrecondition for the model, InvalidArgument for a prompt that does not fit the context
        together with its answer, ResourceExhausted if too many requests wait or answers cannot be recorded.
        """
        now = time.monotonic()
        served = self._catalogue().resolve(model)
        self._check()
        tokens = tokens or await asyncio.to_thread(self._encode, prompt)
        if len(tokens) + sampling.max_output_tokens > self._max_context_tokens:
            raise InvalidArgument(
                "prompt",
                "context",
                f"{len(tokens)} prompt tokens and up to {sampling.max_output_tokens} output tokens do not fit"
                f" the model's context of {self._max_context_tokens}",
                len(tokens),
            )
        request = Request(
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
        tracing.requested(request)
        stream = AnswerStream(request)
        stream.start(self._engine)
        return stream

    def render_chat(self, messages: list[dict[str, str]]) -> tuple[str, tuple[int, ...]]:
        """Returns the prompt of a conversation by the chat template of the base model, ready for its answer, and its tokens.

        Only the template makes control tokens: the names of others in a message (`<filename>`) are text. Raises
        InvalidArgument that names a message with the mark of a turn or of the end: its author means to speak as another.
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
        text, tokens = chat(self._tokenizer, messages)
        return text, tuple(tokens)

    def _encode(self, prompt: str) -> tuple[int, ...]:
        tokens = token_ids(self._tokenizer, prompt)
        if not tokens:
            raise InvalidArgument("prompt", "min_tokens", "must hold at least one token", prompt)
        return tuple(tokens)
