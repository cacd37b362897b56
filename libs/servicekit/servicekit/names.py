"""Resource names in requests: `identity.names` reads them, and a wrong one is the caller's INVALID_ARGUMENT."""

from __future__ import annotations

from typing import TypeVar

from identity.names import InvalidName, ResourceName, parse_any
from servicekit.errors import InvalidArgument

N = TypeVar("N", bound=ResourceName)


def parse(field: str, kind: type[N], text: str) -> N:
    """Returns the name that the request's `field` holds.

    Raises:
        InvalidArgument: names the field, what is wrong with the text, and the form it should have.
    """
    return parse_one_of(field, text, kind)


def parse_one_of(field: str, text: str, *kinds: type[N]) -> N:
    """Returns the name that the request's `field` holds, which may be of any of the kinds.

    Raises:
        InvalidArgument: as `parse`, with the form of each kind.
    """
    try:
        return parse_any(text, *kinds)
    except InvalidName as error:
        raise InvalidArgument(field, "resource_name", str(error), text) from None
