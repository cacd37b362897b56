"""Resource names out of requests."""

from __future__ import annotations

from typing import TypeVar

from identity.names import InvalidName, ResourceName
from servicekit.errors import InvalidArgument

N = TypeVar("N", bound=ResourceName)


def parse(field: str, kind: type[N], text: str) -> N:
    """The name in a request's field. Raises InvalidArgument that names the field and the form."""
    try:
        return kind.parse(text)
    except InvalidName as error:
        raise InvalidArgument(field, "resource_name", str(error), text) from None


def id_of(name: str) -> str:
    """The last segment of a name whose form the request's rules have checked."""
    return name.rsplit("/", 1)[1]
