"""The steps around every handler, for RPCs and HTTP requests.

Both adapters (`servicekit.server.grpc_calls`, `servicekit.server.http_calls`) create a `Call` and run it through one pipeline,
so refusals, spans and metrics are the same for both protocols. `servicekit.server.steps` lists the steps in order.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

from servicekit.auth import TokenVerifier
from servicekit.server.call import Call, set_current_call
from servicekit.server.limiter import Limiter
from servicekit.server.request_memory import RequestMemory
from servicekit.server.response_memory import ResponseMemory
from servicekit.server.steps.authentication import Authentication
from servicekit.server.steps.deadline import Deadline
from servicekit.server.steps.errors import errors
from servicekit.server.steps.metrics import metrics
from servicekit.server.steps.permission import permission
from servicekit.server.steps.rate import rate_limit
from servicekit.server.steps.trace import trace

Step = Callable[[Call], AbstractAsyncContextManager[None]]
"""A context manager around the handler."""

Handle: TypeAlias = Callable[[Any, Any], Awaitable[Any]]
"""Takes a call and its request, and returns its response. Each adapter has its own subclass of `Call` and type of request."""


class Pipeline:
    """The steps in order, outermost first."""

    def __init__(
        self,
        steps: Sequence[Step],
        memory: RequestMemory,
        close: Callable[[], None] = lambda: None,
        *,
        responses: ResponseMemory | None = None,
    ) -> None:
        self._steps = steps
        self.memory = memory
        """The bytes of requests, which the adapters count as they read them."""
        self.responses = responses or ResponseMemory()
        """The bytes of responses, which gRPC's adapter counts until they are sent."""
        self.close = close
        """Ends the threads of the steps."""

    def wrap(self, handle: Handle) -> Handle:
        """Returns `handle` wrapped in all steps. Called once per method, because an exit stack per call would be expensive."""
        whole = handle
        for step in reversed(self._steps):
            whole = _inside(step, whole)

        async def run(call: Call, request: Any) -> Any:
            set_current_call(call)
            try:
                return await whole(call, request)
            finally:
                call.end()

        return run


def service_pipeline(
    verifier: TokenVerifier,
    limiter: Limiter,
    memory: RequestMemory,
    *,
    default_deadline_s: float,
    max_deadline_s: float,
    responses: ResponseMemory | None = None,
) -> Pipeline:
    """Returns the pipeline of a service; all of its servers share it."""
    authentication = Authentication(verifier)
    deadline = Deadline(default_deadline_s, max_deadline_s)
    steps = (trace, metrics, errors, authentication, rate_limit(limiter), permission, deadline)
    return Pipeline(steps, memory, authentication.close, responses=responses)


def _inside(step: Step, handle: Handle) -> Handle:
    async def run(call: Call, request: Any) -> Any:
        async with step(call):
            return await handle(call, request)

    return run
