"""The interceptors around each handler, for all four kinds of RPC at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from servicekit.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted
from servicekit.server.access import Rule
from servicekit.server.call import Call, set_current_call
from servicekit.server.interceptors.validation import Validation

Around = Callable[[Call], AbstractAsyncContextManager[None]]
"""An interceptor: enters before the handler, leaves after it."""

Step: TypeAlias = Callable[[Call, Any], Awaitable[Any]]

# In quotes: gRPC's classes take type arguments in their stubs only.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

MAX_REQUEST_BYTES = 4 << 20
"""Largest request that is one message. A message of a stream may be as large as the wire takes: its handler has the word."""

# Long enough for gRPC to deliver a cancellation that it has already seen, short beside any client's stream.
_CANCELLATION_S = 0.002


class Pipeline(grpc.aio.ServerInterceptor):
    """Wraps every handler. A method without a rule is not served at all."""

    def __init__(self, rules: Mapping[str, Rule], around: Sequence[Around], validation: Validation) -> None:
        self._rules = rules
        self._around = around
        self._validation = validation
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The wrapped handler of a method; none (UNIMPLEMENTED) where there is none."""
        method: str = handler_call_details.method
        if method not in self._wrapped:
            handler = await continuation(handler_call_details)
            if handler is None or method not in self._rules:
                return None
            self._wrapped[method] = self._wrap(method, handler)
        return self._wrapped[method]

    def _wrap(self, method: str, handler: Handler) -> Handler:
        inner, make = _form(handler)

        async def answer(call: Call, request: Any) -> Any:
            return await self._answer(handler, inner, request, call.context)

        whole: Step = answer
        for around in reversed(self._around):
            whole = _inside(around, whole)

        async def run(request: Any, context: Context) -> Any:
            unary = not handler.request_streaming and not handler.response_streaming
            call = Call(method, unary, self._rules[method], context)
            set_current_call(call)
            try:
                return await whole(call, request)
            finally:
                call.ended.set()

        # No deserializer: gRPC would run it before anyone knows who calls, and answer UNKNOWN to bytes that are no message.
        return make(run, None, handler.response_serializer)

    async def _answer(self, handler: Handler, inner: Any, request: Any, context: Context) -> Any:
        if handler.request_streaming:
            request = self._checked(handler, request, context)
        else:
            request = self._read(handler, request, MAX_REQUEST_BYTES)
        answer = inner(request, context)
        if not hasattr(answer, "__aiter__"):
            return await answer
        # Responses are written from here, not yielded on: a cancelled call then unwinds this very frame, in its task, and
        # not a forgotten generator at some later time.
        try:
            async for response in answer:
                await context.write(response)
        finally:
            await answer.aclose()
        return None

    def _read(self, handler: Handler, data: bytes, limit: int | None = None) -> Any:
        """The message in the bytes of a request. Raises ResourceExhausted, InvalidArgument."""
        if limit is not None and len(data) > limit:
            message = f"the request has {len(data)} bytes; at most {limit} are taken"
            raise ResourceExhausted("REQUEST_TOO_LARGE", message, metadata={"limit_bytes": str(limit)})
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

    async def _checked(
        self, handler: Handler, requests: AsyncIterator[bytes], context: Context
    ) -> AsyncIterator[Any]:
        async for data in requests:
            yield self._read(handler, data)
        # gRPC ends the requests of a cancelled or expired call as if its client had finished. A handler that believed it
        # would go on with half a stream, so the truth is waited for.
        await asyncio.sleep(_CANCELLATION_S)
        remaining_s: float | None = context.time_remaining()
        if remaining_s is not None and remaining_s <= 0:
            raise DeadlineExceeded()


def _inside(around: Around, step: Step) -> Step:
    """A step within an interceptor. Made once a method: an exit stack, made for each call, costs more than what is in it."""

    async def run(call: Call, request: Any) -> Any:
        async with around(call):
            return await step(call, request)

    return run


def _form(handler: Handler) -> tuple[Any, Callable[..., Handler]]:
    """The handler's function and how one of its kind is made."""
    if handler.request_streaming and handler.response_streaming:
        return handler.stream_stream, grpc.stream_stream_rpc_method_handler
    if handler.request_streaming:
        return handler.stream_unary, grpc.stream_unary_rpc_method_handler
    if handler.response_streaming:
        return handler.unary_stream, grpc.unary_stream_rpc_method_handler
    return handler.unary_unary, grpc.unary_unary_rpc_method_handler
