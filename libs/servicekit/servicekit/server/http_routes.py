"""HTTP routes as a service declares them: path, permission, body and handler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from servicekit.errors import DomainError, StartupError
from servicekit.server.access import Rule, declared

MAX_BODY_BYTES = 1 << 20
"""Largest body of a route that does not set its own limit."""

B = TypeVar("B", bound=BaseModel)


@dataclass(frozen=True, kw_only=True)
class HttpRoute:
    """A route. Made by `get` and `post`.

    Attributes:
        method: ``GET``, ``POST``, ...
        path: Starlette's form: ``/v1/models/{name:path}``.
        handle: takes the request and its body. When it raises `DomainError`, the adapter responds with that error.
        body: what the body is parsed into; None for a route that takes no body.
        permission: who may call it.
        public: whether everyone may call it; then it has no permission.
        max_body_bytes: the largest accepted body.
        deadline_s: how long a call may take; None is the service's default.
        streaming: whether responses may be streams. Such a route has the deadline that it sets, or none.
    """

    method: str
    path: str
    handle: Callable[[Request, Any], Awaitable[Response]]
    body: type[BaseModel] | None
    permission: str | None
    public: bool
    max_body_bytes: int
    deadline_s: float | None
    streaming: bool

    @property
    def name(self) -> str:
        """``POST /v1/completions``: in spans, metrics and logs."""
        return f"{self.method} {self.path}"


def get(
    path: str,
    handle: Callable[[Request], Awaitable[Response]],
    *,
    permission: str | None = None,
    public: bool = False,
) -> HttpRoute:
    """Returns a route without a body."""

    async def without_body(request: Request, body: None) -> Response:
        return await handle(request)

    return HttpRoute(
        method="GET",
        path=path,
        handle=without_body,
        body=None,
        permission=permission,
        public=public,
        max_body_bytes=0,
        deadline_s=None,
        streaming=False,
    )


def post(
    path: str,
    body: type[B],
    handle: Callable[[Request, B], Awaitable[Response]],
    *,
    permission: str | None = None,
    public: bool = False,
    max_body_bytes: int = MAX_BODY_BYTES,
    deadline_s: float | None = None,
    streaming: bool = False,
) -> HttpRoute:
    """Returns a route whose JSON body is parsed and validated before the handler sees it."""
    return HttpRoute(
        method="POST",
        path=path,
        handle=handle,
        body=body,
        permission=permission,
        public=public,
        max_body_bytes=max_body_bytes,
        deadline_s=deadline_s,
        streaming=streaming,
    )


class ErrorFormat(Protocol):
    """How an HTTP API formats errors. The adapter sets status and headers."""

    def response(self, error: DomainError, status: int) -> Response:
        """Returns the response to a refused request."""

    def event(self, error: DomainError) -> bytes:
        """Returns the last event of a stream whose status was already sent."""


def http_rules(routes: Iterable[HttpRoute]) -> Mapping[str, Rule]:
    """Returns the rule of each route, by its name.

    Raises:
        StartupError: a route does not declare who may call it, or is declared twice.
    """
    rules: dict[str, Rule] = {}
    for route in routes:
        if route.name in rules:
            raise StartupError(f"the HTTP route {route.name} is declared twice")
        rules[route.name] = declared(f"the HTTP route {route.name}", route.permission, route.public)
    return rules
