"""The OpenAI-compatible HTTP door: /v1/models, /v1/completions, /v1/chat/completions.

The same tokens and permissions as gRPC's; errors in OpenAI's shape. Every answer carries the header
x-openledger-inference-id, by which its attribution can be asked for.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, suppress
from typing import Any

import grpc
from opentelemetry.trace import SpanKind, Status, StatusCode
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from inference import metrics
from inference.openai_schema import Asked, ChatRequest, CompletionRequest, Replies, parse
from inference.reception import AnswerStream, Reception
from servicekit.auth import Principal
from servicekit.errors import DomainError, InvalidArgument, NotFound, PermissionDenied, Unauthenticated
from servicekit.server.limiter import Limiter
from servicekit.telemetry import current_trace_id, current_traceparent, extract, tracer

log = logging.getLogger(__name__)

INFERENCE_HEADER = "x-openledger-inference-id"
GENERATE, READ_MODELS = "inference.answers.generate", "inference.models.read"
MAX_BODY_BYTES = 1 << 20

_HTTP_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: (400, "invalid_request_error"),
    grpc.StatusCode.UNAUTHENTICATED: (401, "authentication_error"),
    grpc.StatusCode.PERMISSION_DENIED: (403, "permission_error"),
    grpc.StatusCode.NOT_FOUND: (404, "invalid_request_error"),
    grpc.StatusCode.FAILED_PRECONDITION: (409, "invalid_request_error"),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (429, "rate_limit_error"),
    grpc.StatusCode.CANCELLED: (499, "api_error"),
    grpc.StatusCode.UNAVAILABLE: (503, "api_error"),
    grpc.StatusCode.DEADLINE_EXCEEDED: (504, "api_error"),
}

Verify = Callable[[str], Principal]
"""A bearer token's principal. Raises Unauthenticated, or Unavailable when the issuer does not answer. May
block.
"""

Handler = Callable[[Request, ExitStack], Awaitable[Response]]
"""What it enters into the stack is left when the response is made, or by a stream at its end."""

Endpoint = Callable[[Request], Awaitable[Response]]


def build_app(reception: Reception, verify: Verify, limiter: Limiter, max_answer_s: float) -> Starlette:
    """The ASGI application. An answer may take `max_answer_s`, waiting included."""
    door = _Door(reception, verify, limiter, max_answer_s)
    return Starlette(
        routes=[
            _route("GET", "/v1/models", door.models),
            _route("GET", "/v1/models/{name:path}", door.model),
            _route("POST", "/v1/completions", door.completions),
            _route("POST", "/v1/chat/completions", door.chat),
        ],
        exception_handlers={HTTPException: _no_route},
    )


class _Door:
    def __init__(self, reception: Reception, verify: Verify, limiter: Limiter, max_answer_s: float) -> None:
        self._reception = reception
        self._verify = verify
        self._limiter = limiter
        self._max_answer_s = max_answer_s

    async def models(self, request: Request, call: ExitStack) -> Response:
        await self._authorise(request, READ_MODELS, call)
        return JSONResponse({"object": "list", "data": [*self._models().values()]})

    async def model(self, request: Request, call: ExitStack) -> Response:
        await self._authorise(request, READ_MODELS, call)
        name = request.path_params["name"]
        if name not in (models := self._models()):
            raise NotFound("model", name)
        return JSONResponse(models[name])

    async def completions(self, request: Request, call: ExitStack) -> Response:
        principal = await self._authorise(request, GENERATE, call)
        asked = parse(CompletionRequest, await _body(request))
        return await self._answer(request, call, principal, asked, asked.prompt, chat=False)

    async def chat(self, request: Request, call: ExitStack) -> Response:
        principal = await self._authorise(request, GENERATE, call)
        asked = parse(ChatRequest, await _body(request))
        messages = [{"role": message.role, "content": message.text} for message in asked.messages]
        prompt = await asyncio.to_thread(self._reception.render_chat, messages)
        return await self._answer(request, call, principal, asked, prompt, chat=True)

    async def _answer(
        self, request: Request, call: ExitStack, principal: Principal, asked: Asked, prompt: str, chat: bool
    ) -> Response:
        stream = await self._reception.ask(
            asked.model,
            prompt,
            asked.sampling(),
            principal.name,
            request_id=request.headers.get("x-request-id", "")[:64],
            timeout_s=self._max_answer_s,
            traceparent=current_traceparent() or None,
        )
        headers = {INFERENCE_HEADER: stream.question.inference}
        replies = Replies(stream.question, chat)
        if asked.stream:
            usage = asked.stream_options is not None and asked.stream_options.include_usage
            call.callback(stream.close)
            return _Events(_server_sent_events(stream, replies, usage), headers, call.pop_all())
        await _to_the_end(stream, request)
        assert stream.answer is not None
        return JSONResponse(replies.whole(stream.answer), headers=headers)

    async def _authorise(self, request: Request, permission: str, call: ExitStack) -> Principal:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("TOKEN_MISSING")
        principal = await asyncio.to_thread(self._verify, token.strip())
        call.enter_context(self._limiter.call(principal.name))
        if not principal.may(permission):
            raise PermissionDenied(permission, principal.name)
        return principal

    def _models(self) -> dict[str, dict[str, Any]]:
        """By name; a model's own name stands for its default version."""
        models: dict[str, dict[str, Any]] = {}
        for served in self._reception.served():
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


async def _to_the_end(stream: AnswerStream, request: Request) -> None:
    """Waits for the whole answer; a client that goes away meanwhile ends it. Raises what the stream raises."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        stream.close()

    watcher = asyncio.create_task(gone())
    try:
        async for _ in stream:
            pass
    finally:
        stream.close()
        watcher.cancel()
        with suppress(asyncio.CancelledError):
            await watcher


class _Events(StreamingResponse):
    """A stream that closes its call when it ends, also when its client goes away before the first byte."""

    def __init__(self, parts: AsyncIterator[str], headers: dict[str, str], call: ExitStack) -> None:
        super().__init__(parts, media_type="text/event-stream", headers=headers)
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._call:
            await super().__call__(scope, receive, send)


async def _server_sent_events(stream: AnswerStream, replies: Replies, usage: bool) -> AsyncIterator[str]:
    try:
        async for piece in stream:
            yield _event(replies.chunk(piece))
        assert stream.answer is not None
        yield _event(replies.chunk(answer=stream.answer))
        if usage:
            yield _event(replies.usage_chunk(stream.answer))
        yield "data: [DONE]\n\n"
    except DomainError as error:
        # The status went out with the first byte; what is left is to say it in the stream, and not to say
        # [DONE].
        yield _event(_error_body(error)[1])


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


async def _body(request: Request) -> bytes:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY_BYTES:
            raise InvalidArgument("body", "max_bytes", f"must not be larger than {MAX_BODY_BYTES} bytes")
    return bytes(data)


def _route(method: str, path: str, handle: Handler) -> Route:
    return Route(path, _guarded(method, path, handle), methods=[method])


def _guarded(method: str, path: str, handle: Handler) -> Endpoint:
    """A handler within the caller's trace, counted and timed to the beginning of its answer. Span and metrics are named by
    the route: what a caller writes into a path must not get into either."""

    async def guarded(request: Request) -> Response:
        context = extract({key.lower(): value for key, value in request.headers.items()})
        attributes = {"http.request.method": method, "http.route": path, "url.scheme": request.url.scheme}
        begun = time.perf_counter()
        span = tracer.start_as_current_span(
            f"{method} {path}", context=context, kind=SpanKind.SERVER, attributes=attributes
        )
        with span as known, ExitStack() as call:
            response = await _answered(handle, request, call)
            known.set_attribute("http.response.status_code", response.status_code)
            if response.status_code >= 500:
                known.set_status(Status(StatusCode.ERROR))
        metrics.http_answered(f"{method} {path}", response.status_code, time.perf_counter() - begun)
        return response

    return guarded


async def _answered(handle: Handler, request: Request, call: ExitStack) -> Response:
    """The handler's response, or its error as OpenAI tells one."""
    try:
        return await handle(request, call)
    except DomainError as error:
        return _refusal(error)
    except ClientDisconnect:
        return Response(status_code=499)
    except Exception:
        log.exception("a request failed")
        body = {"message": f"internal error, trace id {current_trace_id()}", "type": "api_error"}
        return JSONResponse({"error": {**body, "param": None, "code": "INTERNAL"}}, 500)


def _refusal(error: DomainError) -> Response:
    status, body = _error_body(error)
    headers = {}
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(retry_after_s)))
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(body, status, headers)


def _error_body(error: DomainError) -> tuple[int, dict[str, Any]]:
    status, kind = _HTTP_STATUS.get(error.code, (500, "api_error"))
    field = error.violations[0].field if isinstance(error, InvalidArgument) else None
    if isinstance(error, NotFound):
        field = "model"
    return status, {"error": {"message": error.message, "type": kind, "param": field, "code": error.reason}}


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    body = {"message": message, "type": "invalid_request_error", "param": None, "code": "NO_SUCH_ROUTE"}
    return JSONResponse({"error": body}, error.status_code)
