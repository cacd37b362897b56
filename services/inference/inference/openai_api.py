"""The OpenAI-compatible HTTP API: /v1/models, /v1/completions, /v1/chat/completions.

It runs through the same pipeline as the gRPC API: the same tokens, permissions, limits, traces and metrics. Errors have
OpenAI's shape. Every answer carries the header x-openledger-inference-id; its attribution can be looked up by that id.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from openledger.inference.v1 import inference_pb2 as pb
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from inference.frontend import AnswerStream, Frontend
from inference.openai_schema import ChatRequest, CompletionRequest, GenerationBody, Replies
from servicekit.auth import current_principal
from servicekit.errors import DomainError, InvalidArgument, NotFound
from servicekit.server.call import on_call_end
from servicekit.server.http_routes import HttpRoute, get, post
from servicekit.server.http_status import status_of
from servicekit.server.steps.validation import Validation
from servicekit.telemetry.traces import current_traceparent

INFERENCE_HEADER = "x-openledger-inference-id"
GENERATE, READ_MODELS = "inference.answers.generate", "inference.models.read"

_SOME_PROMPT = "a"
"""Follows every rule, so that a request of it and a name breaks only rules of the name."""

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}


def openai_routes(frontend: Frontend, max_answer_s: float) -> Sequence[HttpRoute]:
    """Returns the routes of the API. An answer may take `max_answer_s`, waiting included."""
    api = _Api(frontend, max_answer_s)
    return (
        get("/v1/models", api.models, permission=READ_MODELS),
        get("/v1/models/{name:path}", api.model, permission=READ_MODELS),
        post(
            "/v1/completions",
            CompletionRequest,
            api.completions,
            permission=GENERATE,
            deadline_s=max_answer_s,
            streaming=True,
        ),
        post(
            "/v1/chat/completions",
            ChatRequest,
            api.chat,
            permission=GENERATE,
            deadline_s=max_answer_s,
            streaming=True,
        ),
    )


class OpenAiErrors:
    """Errors as OpenAI's clients expect them."""

    def response(self, error: DomainError, status: int) -> Response:
        """Returns ``{"error": {"message", "type", "param", "code"}}``; `code` is the reason that gRPC clients see too."""
        return JSONResponse(_error_body(error, status), status)

    def event(self, error: DomainError) -> bytes:
        """Returns the same object as an event: the status was sent with the first byte. No ``[DONE]`` follows."""
        return _event(_error_body(error, status_of(error))).encode()


class _Api:
    def __init__(self, frontend: Frontend, max_answer_s: float) -> None:
        self._frontend = frontend
        self._max_answer_s = max_answer_s
        self._validation = Validation()

    def _check_name(self, name: str) -> None:
        """Raises InvalidArgument, as Generate does, for what can be no model's name."""
        self._validation.check(pb.GenerateRequest(model=name, prompt=_SOME_PROMPT))

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [*self._models().values()]})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        self._check_name(name)
        if name not in (models := self._models()):
            raise NotFound("model", name)
        return JSONResponse(models[name])

    async def completions(self, request: Request, body: CompletionRequest) -> Response:
        return await self._answer(request, body, body.prompt)

    async def chat(self, request: Request, body: ChatRequest) -> Response:
        messages = [{"role": message.role, "content": message.text} for message in body.messages]
        prompt, tokens = await asyncio.to_thread(self._frontend.render_chat, messages)
        return await self._answer(request, body, prompt, tokens)

    async def _answer(
        self, request: Request, body: GenerationBody, prompt: str, tokens: tuple[int, ...] = ()
    ) -> Response:
        self._check_name(body.model)
        stream = await self._frontend.submit(
            model=body.model,
            prompt=prompt,
            tokens=tokens,
            sampling=body.sampling(),
            principal=current_principal().name,
            request_id=request.headers.get("x-request-id", "")[:64],
            timeout_s=self._max_answer_s,
            traceparent=current_traceparent() or None,
        )
        on_call_end(stream.close)  # also when the client leaves before a stream's first byte
        headers = {INFERENCE_HEADER: stream.request.inference}
        replies = Replies(stream.request, chat=bool(tokens))
        if body.stream:
            usage = body.stream_options is not None and body.stream_options.include_usage
            return EventSourceResponse(_events(stream, replies, usage), headers=headers, sep="\n")
        async for _ in stream:
            pass
        assert stream.answer is not None
        return JSONResponse(replies.whole(stream.answer), headers=headers)

    def _models(self) -> dict[str, dict[str, Any]]:
        """Returns the models by name; a model's own name stands for its default version."""
        models: dict[str, dict[str, Any]] = {}
        for served in self._frontend.served():
            names = (
                [served.name, served.name.partition("/versions/")[0]] if served.is_default else [served.name]
            )
            for name in names:
                models[name] = {
                    "id": name,
                    "object": "model",
                    "created": 0,
                    "owned_by": served.owner or "base",
                    "version": served.name,
                    "base_digest": served.base_digest,
                    "adapter_digest": served.adapter_digest,
                    "version_digest": served.version_digest,
                    "report_digest": served.report_digest,
                }
        return models


async def _events(stream: AnswerStream, replies: Replies, usage: bool) -> AsyncIterator[ServerSentEvent]:
    async for piece in stream:
        yield _event(replies.chunk(piece))
    assert stream.answer is not None
    yield _event(replies.chunk(answer=stream.answer))
    if usage:
        yield _event(replies.usage_chunk(stream.answer))
    yield ServerSentEvent("[DONE]", sep="\n")


def _event(content: dict[str, Any]) -> ServerSentEvent:
    return ServerSentEvent(json.dumps(content, ensure_ascii=False), sep="\n")


def _error_body(error: DomainError, status: int) -> dict[str, Any]:
    kind = _TYPES.get(status, "invalid_request_error" if status < 499 else "api_error")
    field = error.violations[0].field if isinstance(error, InvalidArgument) else None
    if isinstance(error, NotFound):
        field = "model"
    return {"error": {"message": error.message, "type": kind, "param": field, "code": error.reason}}
