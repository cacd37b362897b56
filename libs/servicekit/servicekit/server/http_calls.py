"""Runs HTTP requests through the pipeline: an ASGI application with the declared routes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import grpc
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from servicekit.errors import (
    UNKNOWN_FIELD,
    Cancelled,
    DomainError,
    FieldViolation,
    InvalidArgument,
    Unimplemented,
)
from servicekit.server.access import Rule
from servicekit.server.call import Call, Header
from servicekit.server.http_routes import ErrorFormat, HttpRoute, http_rules
from servicekit.server.http_status import code_of, status_of
from servicekit.server.pipeline import Handle, Pipeline
from servicekit.server.request_memory import RequestMemory
from servicekit.server.steps.body import check_size

_SCALARS = frozenset({"str", "int", "float", "bool"})
_MOST_VIOLATIONS = 20


def http_app(routes: Sequence[HttpRoute], pipeline: Pipeline, format: ErrorFormat) -> Starlette:
    """Returns the ASGI application that serves the routes.

    Raises:
        StartupError: a route does not declare who may call it.
    """
    rules = http_rules(routes)

    async def no_route(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        message = f"{request.method} {request.url.path}: {error.detail}"
        return format.response(Unimplemented("NO_SUCH_ROUTE", message), error.status_code)

    served = [
        Route(route.path, _endpoint(route, rules[route.name], pipeline, format), methods=[route.method])
        for route in routes
    ]
    return Starlette(routes=served, exception_handlers={HTTPException: no_route})


class HttpCall(Call):
    """A request to a route."""

    def __init__(
        self, route: HttpRoute, rule: Rule, format: ErrorFormat, *, scope: Scope, receive: Receive, send: Send
    ) -> None:
        super().__init__(route.name, rule, streaming=route.streaming)
        self.route = route
        self.scope = scope
        self._format = format
        self._receive = receive
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._until = None if route.deadline_s is None else self._loop.time() + route.deadline_s
        self._headers = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
        ]
        self._status: int | None = None
        self._event_stream = False
        self._complete = False
        self._gone = asyncio.Event()

    def headers(self) -> Iterable[Header]:
        return self._headers

    def remaining_s(self) -> float | None:
        return None if self._until is None else self._until - self._loop.time()

    def span_name(self) -> str:
        return self.method

    def span_attributes(self) -> Mapping[str, str]:
        return {
            "http.request.method": self.route.method,
            "http.route": self.route.path,
            "url.scheme": self.scope["scheme"],
        }

    def outcome_attributes(self) -> Mapping[str, str | int]:
        return {} if self._status is None else {"http.response.status_code": self._status}

    def handler_code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNKNOWN if self._status is None else code_of(self._status)

    @property
    def client_left(self) -> bool:
        """Whether the client closed the connection before the response was complete."""
        return self._gone.is_set()

    async def refuse(self, error: DomainError) -> None:
        """Responds with the error. In an event stream that has begun, sends it as the last event."""
        if self._status is None:
            status = status_of(error)
            response = self._format.response(error, status)
            _explain(response, error, status)
            await response(self.scope, self.receive, self.send)
        elif self._event_stream and not self._complete:
            await self.send({"type": "http.response.body", "body": self._format.event(error)})
        elif not self._complete and not self.client_left:
            raise error  # the server closes the connection, so that half a body does not look complete

    async def send(self, message: Message) -> None:
        """Sends a part of the response and records the progress."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._event_stream = _is_event_stream(message["headers"])
        elif message["type"] == "http.response.body":
            self._complete = not message.get("more_body", False)
        await self._send(message)

    async def receive(self) -> Message:
        """Waits until the client disconnects. Responses that watch for a disconnect call this."""
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def read_body(self, memory: RequestMemory) -> bytes:
        """Returns the whole body. Its bytes count until the call ends.

        Raises:
            ResourceExhausted: the body is too large, or there is no room for it.
            Cancelled: the client left before the end of the body.
        """
        size = limit = self.route.max_body_bytes
        if (length := dict(self._headers).get("content-length", "")).isdecimal():
            check_size(int(length), limit)
            size = int(length)
        held = await memory.admit(self.principal_name, size)
        self.on_end(partial(memory.release, held))
        async with memory.receiving(held):
            data = await self._whole_body(limit)
        memory.shrink(held, len(data))
        return data

    async def _whole_body(self, limit: int) -> bytes:
        data = bytearray()
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._gone.set()
                raise Cancelled()
            data += message.get("body", b"")
            check_size(len(data), limit)
            if not message.get("more_body", False):
                return bytes(data)

    async def until_client_leaves(self) -> None:
        """Returns when the client has disconnected before the end of the response."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._complete:
            self._gone.set()


def _endpoint(route: HttpRoute, rule: Rule, pipeline: Pipeline, format: ErrorFormat) -> ASGIApp:
    async def answer(call: HttpCall, _: None) -> None:
        await _answer(call, pipeline.memory)

    whole: Handle = pipeline.wrap(answer)

    class Endpoint:  # a class: Starlette would wrap a function
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            call = HttpCall(route, rule, format, scope=scope, receive=receive, send=send)
            await whole(call, None)

    return Endpoint()


async def _answer(call: HttpCall, memory: RequestMemory) -> None:
    body = None
    if call.route.body is not None:
        body = _parse(call.route.body, await call.read_body(memory))

    async def respond() -> None:
        response = await call.route.handle(Request(call.scope, call.receive), body)
        await response(call.scope, call.receive, call.send)

    await _while_client_stays(call, respond)


async def _while_client_stays(call: HttpCall, respond: Callable[[], Awaitable[None]]) -> None:
    """Runs `respond`, and cancels it when the client disconnects: an ASGI server only reports a disconnect.

    Raises:
        Cancelled: the client disconnected.
    """
    task = asyncio.current_task()
    assert task is not None

    async def watch() -> None:
        await call.until_client_leaves()
        if call.client_left:
            task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        await respond()
    except asyncio.CancelledError:
        if call.client_left and task.uncancel() == 0:
            raise Cancelled() from None
        raise
    finally:
        watcher.cancel()
        await asyncio.wait({watcher})


def _parse(kind: type[BaseModel], data: bytes) -> BaseModel:
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise InvalidArgument.many(
            _violation(kind, dict(one)) for one in error.errors()[:_MOST_VIOLATIONS]
        ) from None


def _violation(kind: type[BaseModel], error: dict[str, Any]) -> FieldViolation:
    rule, message = str(error["type"]), str(error["msg"])
    if rule == "json_invalid":
        return FieldViolation("body", "malformed", f"is not JSON: {message.removeprefix('Invalid JSON: ')}")
    if rule == "extra_forbidden":
        *above, unknown = error["loc"]
        field = f"{_path(kind, above)}.{unknown}".lstrip(".")
        return FieldViolation(field, UNKNOWN_FIELD, "is not supported here")
    return FieldViolation(_path(kind, error["loc"]) or "body", rule, message)


def _path(kind: type[BaseModel], location: Iterable[int | str]) -> str:
    """Returns pydantic's location as a path, keys of a map in brackets."""
    path, fields = "", _fields_of(kind)
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part in fields:
            path += f".{part}"
        elif part.isidentifier() and part not in _SCALARS:
            path += f"[{json.dumps(part)}]"
        # Other parts name the alternative that pydantic tried for a field with several possible types.
    return path.lstrip(".")


@cache
def _fields_of(kind: type[BaseModel]) -> frozenset[str]:
    """Returns the names of all fields of a request and of the messages within it."""
    schema = kind.model_json_schema()
    parts = (schema, *schema.get("$defs", {}).values())
    return frozenset(name for part in parts for name in part.get("properties", ()))


def _explain(response: Response, error: DomainError, status: int) -> None:
    """Sets the headers with which an HTTP client can react to the error."""
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        response.headers["retry-after"] = str(max(1, round(retry_after_s)))
    if status == 401:
        response.headers["www-authenticate"] = "Bearer"


def _is_event_stream(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(
        name.lower() == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers
    )
