"""Runs RPCs through the pipeline: a grpc.aio interceptor for all four kinds of RPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from servicekit.errors import DeadlineExceeded, DomainError, InvalidArgument, to_status
from servicekit.errors.status import DETAILS_KEY
from servicekit.server.access import Rule
from servicekit.server.call import Call, Header
from servicekit.server.pipeline import Handle, Pipeline
from servicekit.server.request_memory import MAX_RECEIVE_BYTES
from servicekit.server.steps.body import check_size
from servicekit.server.steps.validation import Validation

# In quotes: gRPC's classes accept type arguments only in their stubs.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

MAX_REQUEST_BYTES = 4 << 20
"""Largest unary request. A message of a stream may have the largest size of a message; its handler decides."""

# Long enough for gRPC to deliver a cancellation that it has received; short compared with a client's stream.
_CANCELLATION_S = 0.002


class GrpcCall(Call):
    """An RPC. `context` is gRPC's context."""

    def __init__(self, method: str, rule: Rule, context: Context, *, streaming: bool) -> None:
        super().__init__(method, rule, streaming=streaming)
        self.context = context

    def headers(self) -> Iterable[Header]:
        return self.context.invocation_metadata() or ()

    def remaining_s(self) -> float | None:
        remaining_s: float | None = self.context.time_remaining()
        return remaining_s

    def span_name(self) -> str:
        return self.method.removeprefix("/")

    def span_attributes(self) -> Mapping[str, str]:
        return {"rpc.system.name": "grpc", "rpc.method": self.method.removeprefix("/")}

    def outcome_attributes(self) -> Mapping[str, str | int]:
        return {"rpc.response.status_code": self.code.name}

    def handler_code(self) -> grpc.StatusCode:
        """gRPC returns a code as the handler set it: a StatusCode, its number, or nothing for OK."""
        code: object = self.context.code()
        if isinstance(code, grpc.StatusCode):
            return code
        return next(
            (known for known in grpc.StatusCode if known.value[0] == (code or 0)), grpc.StatusCode.UNKNOWN
        )

    async def refuse(self, error: DomainError) -> None:
        status = to_status(error)
        # Not abort_with_status: it needs grpcio-status's wrapper for the same three values.
        trailers = ((DETAILS_KEY, status.SerializeToString()),)
        try:
            await self.context.abort(error.code, status.message, trailers)
        except grpc.aio.InternalError:
            # The caller has gone. gRPC would log that with a traceback, so that short deadlines could fill the log.
            raise asyncio.CancelledError from None


class GrpcAdapter(grpc.aio.ServerInterceptor):
    """Wraps every handler. A method without a rule is not served at all."""

    def __init__(self, rules: Mapping[str, Rule], pipeline: Pipeline, validation: Validation) -> None:
        self._rules = rules
        self._pipeline = pipeline
        self._validation = validation
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Returns the wrapped handler of a method; None (UNIMPLEMENTED) where there is none."""
        method: str = handler_call_details.method
        if method not in self._wrapped:
            handler = await continuation(handler_call_details)
            if handler is None or method not in self._rules:
                return None
            self._wrapped[method] = self._wrap(method, handler)
        return self._wrapped[method]

    def _wrap(self, method: str, handler: Handler) -> Handler:
        inner = _function(handler)

        async def answer(call: GrpcCall, _: None) -> Any:
            return await self._answer(handler, inner, call)

        whole: Handle = self._pipeline.wrap(answer)
        rule = self._rules[method]
        streaming = bool(handler.request_streaming or handler.response_streaming)

        async def run(_: object, context: Context) -> Any:
            return await whole(GrpcCall(method, rule, context, streaming=streaming), None)

        # For gRPC every request is a stream, which looks the same on the wire: gRPC reads the request of a unary method before
        # its handler runs, and a caller without a token would decide how much memory that takes.
        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        # No deserializer: gRPC would run it before authentication, and would return UNKNOWN for invalid bytes.
        # The response of a unary method is bytes already, which were counted.
        return make(run, None, handler.response_serializer if handler.response_streaming else None)

    async def _answer(self, handler: Handler, inner: Any, call: GrpcCall) -> Any:
        if handler.request_streaming:
            with self._pipeline.memory.stream(call.principal_name):
                return await self._respond(handler, inner(self._checked(handler, call), call.context), call)
        return await self._respond(handler, inner(await self._received(handler, call), call.context), call)

    async def _respond(self, handler: Handler, answer: Any, call: GrpcCall) -> bytes | None:
        """Returns the bytes of a unary method's response. Writes those of a stream, each when the caller has taken the last."""
        responses, principal, context = self._pipeline.responses, call.principal_name, call.context
        if not handler.response_streaming:
            serialized = handler.response_serializer or bytes
            data: bytes = serialized(await answer)
            await responses.until_sent(principal, len(data), context)
            return data
        if not hasattr(answer, "__aiter__"):
            await answer  # it writes by itself
            return None
        # Responses are written here, not yielded: a cancelled call then unwinds this frame in its own task, and not a
        # generator at a later time.
        try:
            async for response in answer:
                async with responses.written(principal, _size(response)):
                    await context.write(response)
        finally:
            await answer.aclose()
        return None

    async def _received(self, handler: Handler, call: GrpcCall) -> Any:
        """Returns the request of a unary method. Its bytes count until the call ends."""
        memory = self._pipeline.memory
        held = await memory.admit(call.principal_name, MAX_RECEIVE_BYTES)
        call.on_end(partial(memory.release, held))
        async with memory.receiving(held):
            data = await _only(call.context)
        check_size(len(data), call.rule.max_request_bytes or MAX_REQUEST_BYTES)
        memory.shrink(held, len(data))
        return self._read(handler, data)

    def _read(self, handler: Handler, data: bytes) -> Any:
        """Returns the message in the bytes of a request. Raises InvalidArgument."""
        if handler.request_deserializer is None:
            return data
        try:
            request = handler.request_deserializer(data)
        except DecodeError:
            raise InvalidArgument(
                "", "malformed", "the bytes are not a message of the type this method takes"
            ) from None
        self._validation.check(request)
        return request

    async def _checked(self, handler: Handler, call: GrpcCall) -> AsyncIterator[Any]:
        context = call.context
        while (data := await _next(context)) is not None:
            if call.rule.max_request_bytes is not None:
                check_size(len(data), call.rule.max_request_bytes)
            yield self._read(handler, data)
        # gRPC ends the requests of a cancelled or expired call as if the client had finished. The handler would then
        # continue with half a stream, so this waits until gRPC has delivered the cancellation.
        await asyncio.sleep(_CANCELLATION_S)
        remaining_s: float | None = context.time_remaining()
        if remaining_s is not None and remaining_s <= 0:
            raise DeadlineExceeded()


def _size(response: Any) -> int:
    """Returns the size of a message on the wire; a handler without a serializer returns bytes."""
    return len(response) if isinstance(response, bytes) else int(response.ByteSize())


async def _only(context: Context) -> bytes:
    """Returns the one message of a unary request. Raises InvalidArgument if there is none."""
    data = await _next(context)
    if data is None:
        raise InvalidArgument("", "required", "the call has no request message")
    return data


async def _next(context: Context) -> bytes | None:
    """Returns the next message of a request; None at its end.

    Not by gRPC's iterator of requests: it refers to itself, and keeps the last message until Python's collector runs.
    """
    data: Any = await context.read()
    return None if data is grpc.aio.EOF else data


def _function(handler: Handler) -> Any:
    """Returns the function of a handler of any kind."""
    return handler.stream_stream or handler.stream_unary or handler.unary_stream or handler.unary_unary
