"""List requests without protobuf: domain modules take a `Query`; only `api` sees request messages."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

from google.protobuf.message import Message


class ListRequest(Protocol):
    """The fields that every List request has; a generated request message, or a `Query`."""

    @property
    def filter(self) -> str: ...
    @property
    def order_by(self) -> str: ...
    @property
    def page_size(self) -> int: ...
    @property
    def page_token(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Query:
    """A list request. `scope` represents the other fields (for example the parent), for which a page token is valid as well."""

    filter: str = ""
    order_by: str = ""
    page_size: int = 0
    page_token: str = ""
    scope: str = ""

    @classmethod
    def of(cls, request: ListRequest) -> Query:
        """Returns the query of a request message; a `Query` is returned as it is."""
        if isinstance(request, Query):
            return request
        return cls(
            filter=request.filter,
            order_by=request.order_by,
            page_size=request.page_size,
            page_token=request.page_token,
            scope=_scope(request) if isinstance(request, Message) else "",
        )

    def digest(self) -> str:
        """Returns a digest that identifies this list; it is the same for every page."""
        parts = (self.scope, self.filter, self.order_by)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _scope(request: Message) -> str:
    """Returns the request without page_size, page_token and view, as text."""
    rest = type(request)()
    rest.CopyFrom(request)
    for field in ("page_size", "page_token", "view"):
        if field in rest.DESCRIPTOR.fields_by_name:
            rest.ClearField(field)
    return rest.DESCRIPTOR.full_name + rest.SerializeToString(deterministic=True).hex()
