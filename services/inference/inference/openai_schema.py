"""The requests of OpenAI's API that this service understands, and the shapes of its replies.

A parameter that would change the answer and is not supported is refused by name, never ignored: a client that asks
for tools or two choices must not receive an answer without them. Parameters that change nothing here
(`user`, `metadata`, `store`, `service_tier`) are accepted.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from inference.answer import Answer, Finish, Request
from inference.sampling import DEFAULT_OUTPUT_TOKENS, Sampling

Text = Annotated[str, Field(max_length=262_144)]
Stop = Annotated[str, Field(min_length=1, max_length=64)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class StreamOptions(_Request):
    """What a stream carries besides text."""

    include_usage: bool = False
    include_obfuscation: bool = False


class GenerationBody(_Request):
    """The fields that both kinds of request share."""

    model: Annotated[str, Field(min_length=1, max_length=200)]
    max_tokens: Annotated[int, Field(ge=1, le=4096)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**64)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=8)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    # Accepted at the value that changes nothing:
    n: Literal[1] = 1
    presence_penalty: Literal[0] | Annotated[float, Field(ge=0, le=0)] = 0
    frequency_penalty: Literal[0] | Annotated[float, Field(ge=0, le=0)] = 0
    logprobs: Literal[False] | None = None
    # Accepted, and of no effect:
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None

    @property
    def _max_output_tokens(self) -> int | None:
        return self.max_tokens

    def sampling(self) -> Sampling:
        """With this API's defaults: temperature 1, and a seed of its own, recorded with the answer."""
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return Sampling(
            max_output_tokens=self._max_output_tokens or DEFAULT_OUTPUT_TOKENS,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=secrets.randbits(63) if self.seed is None else self.seed,
            stop=stop,
        )


class CompletionRequest(GenerationBody):
    """POST /v1/completions."""

    prompt: Annotated[Text, Field(min_length=1)]


class TextPart(_Request):
    """A part of a message; only text."""

    type: Literal["text"]
    text: Text


class Message(_Request):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Text | list[TextPart]
    name: str | None = None

    @property
    def text(self) -> str:
        """The content as one text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatRequest(GenerationBody):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=4096)] | None = None

    @property
    def _max_output_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


def usage(answer: Answer) -> dict[str, int]:
    """Returns the token counts by OpenAI's names."""
    prompt, output = len(answer.request.prompt_tokens), len(answer.output_tokens)
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}


class Replies:
    """The replies to one request, for chat or plain completion."""

    def __init__(self, request: Request, chat: bool) -> None:
        self._chat = chat
        self._head: dict[str, Any] = {
            "id": request.inference,
            "created": int(request.received.timestamp()),
            "model": request.served.name,
            # What answered: the digest of the version, or of the base.
            "system_fingerprint": request.served.version_digest or request.served.base_digest,
        }

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The reply that is not a stream."""
        text = (
            {"message": {"role": "assistant", "content": answer.text}}
            if self._chat
            else {"text": answer.text}
        )
        kind = "chat.completion" if self._chat else "text_completion"
        return {**self._head, "object": kind, "choices": [_choice(text, answer)], "usage": usage(answer)}

    def chunk(self, text: str | None = None, answer: Answer | None = None) -> dict[str, Any]:
        """One part of a stream: text, or with `answer` its end."""
        if self._chat:
            delta = {} if text is None else {"role": "assistant", "content": text}
            return {
                **self._head,
                "object": "chat.completion.chunk",
                "choices": [_choice({"delta": delta}, answer)],
            }
        return {**self._head, "object": "text_completion", "choices": [_choice({"text": text or ""}, answer)]}

    def usage_chunk(self, answer: Answer) -> dict[str, Any]:
        """The part that carries usage, when it was asked for."""
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        return {**self._head, "object": kind, "choices": [], "usage": usage(answer)}


def _choice(text: dict[str, Any], answer: Answer | None) -> dict[str, Any]:
    reason = None
    if answer is not None:
        # OpenAI has no word for an answer that was cut off; clients understand "length" as incomplete.
        reason = "stop" if answer.finish is Finish.STOP else "length"
    return {"index": 0, **text, "logprobs": None, "finish_reason": reason}
