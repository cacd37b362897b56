"""The interceptors around each handler, for all four kinds of RPC at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, TypeAlias

import grpc

from servicekit.errors import DeadlineExceeded
from servicekit.server.access import Rule
from servicekit.server.call import Call, set_current_call
from servicekit.server.interceptors.validation import Validation

Around = Callable[[Call], AbstractAsyncContextManager[None]]
"""An interceptor: enters before the handler, leaves after it."""

# In quotes: gRPC's classes take type arguments in their stubs only.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

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

        async def run(request: Any, context: Context) -> Any:
            unary = not handler.request_streaming and not handler.response_streaming
            call = Call(method, unary, self._rules[method], context)
            set_current_call(call)
            try:
                async with AsyncExitStack() as stack:
                    for around in self._around:
                        await stack.enter_async_context(around(call))
                    return await self._answer(handler, inner, request, context)
            finally:
                call.ended.set()

        return make(run, handler.request_deserializer, handler.response_serializer)

    async def _answer(self, handler: Handler, inner: Any, request: Any, context: Context) -> Any:
        if handler.request_streaming:
            request = self._checked(request, context)
        else:
            self._validation.check(request)
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

    async def _checked(self, requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        async for request in requests:
            self._validation.check(request)
            yield request
        # gRPC ends the requests of a cancelled or expired call as if its client had finished. A handler that believed it
        # would go on with half a stream, so the truth is waited for.
        await asyncio.sleep(_CANCELLATION_S)
        remaining_s: float | None = context.time_remaining()
        if remaining_s is not None and remaining_s <= 0:
            raise DeadlineExceeded()


def _form(handler: Handler) -> tuple[Any, Callable[..., Handler]]:
    """The handler's function and how one of its kind is made."""
    if handler.request_streaming and handler.response_streaming:
        return handler.stream_stream, grpc.stream_stream_rpc_method_handler
    if handler.request_streaming:
        return handler.stream_unary, grpc.stream_unary_rpc_method_handler
    if handler.response_streaming:
        return handler.unary_stream, grpc.unary_stream_rpc_method_handler
    return handler.unary_unary, grpc.unary_unary_rpc_method_handler
