"""Which calls may be sent again, and when.

A call is safe to repeat when its method only reads (`idempotency_level = NO_SIDE_EFFECTS` in the proto) or when its request
has a `request_id` (AIP-155): the server answers a repeat with the first result. Other calls are never repeated.
"""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message

from openledger_client.errors import OpenLedgerError, Unavailable


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How long a safe call is repeated, and how long to wait before the next attempt."""

    give_up_after_s: float = 30.0
    """Seconds from the first failure of a call to its last attempt. The call's deadline may end it earlier."""
    attempts: int | None = None
    """Most attempts of one call; 1 turns retries off, None sets no limit but time."""
    first_s: float = 0.1
    """Longest backoff before the second attempt; it doubles with each attempt."""
    most_s: float = 5.0
    """Longest backoff."""

    def wait_s(self, error: OpenLedgerError, attempt: int, left_s: float) -> float | None:
        """Returns the seconds to wait before the next attempt; None when `error` is final.

        Errors with RetryInfo and an unreachable service (UNAVAILABLE) are repeated after an exponential backoff with
        full jitter. RetryInfo is added to the backoff: a service at its limit gives all callers the same time, and
        without jitter that grows they would all return at once, again and again.

        Args:
            error: the failure of this attempt.
            attempt: number of this attempt, from 1.
            left_s: seconds until the call's deadline, or until `give_up_after_s` where that is earlier.
        """
        if self.attempts is not None and attempt >= self.attempts:
            return None
        if error.retry_after_s is None and not isinstance(error, Unavailable):
            return None
        doublings = min(attempt - 1, 32)  # a float holds no more than 1,023; `most_s` is reached long before
        backoff_s = random.uniform(0, min(self.most_s, self.first_s * 2**doublings))
        wait_s = (error.retry_after_s or 0.0) + backoff_s
        return wait_s if wait_s < left_s else None


@lru_cache(maxsize=512)
def reads_only(method: str) -> bool:
    """Returns whether the proto declares that a method (`/package.Service/Method`) has no side effects."""
    found = _descriptor(method)
    return found is not None and found.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS


@lru_cache(maxsize=512)
def takes_request_id(method: str) -> bool:
    """Returns whether a method's request has a `request_id`."""
    found = _descriptor(method)
    return found is not None and "request_id" in found.input_type.fields_by_name


def _descriptor(method: str) -> Any:
    service, _, name = method.removeprefix("/").rpartition("/")
    try:
        return descriptor_pool.Default().FindServiceByName(service).FindMethodByName(name)
    except KeyError:
        return None  # not one of ours, e.g. the health service


def with_request_id(request: Any) -> Any:
    """Returns the request with a `request_id`: the caller's, or a new UUID in a copy (AIP-155)."""
    if request.request_id or not isinstance(request, Message):
        return request
    copy = type(request)()
    copy.CopyFrom(request)
    copy.request_id = str(uuid.uuid4())  # type: ignore[attr-defined]
    return copy
