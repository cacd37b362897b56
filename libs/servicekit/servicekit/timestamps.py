"""Times in messages: `google.protobuf.Timestamp` on the wire, an aware `datetime` in UTC everywhere else."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import overload

from google.protobuf.timestamp_pb2 import Timestamp


@overload
def to_proto(moment: datetime) -> Timestamp: ...
@overload
def to_proto(moment: None) -> None: ...
@overload
def to_proto(moment: datetime | None) -> Timestamp | None: ...
def to_proto(moment: datetime | None) -> Timestamp | None:
    """Returns the time as a message, to the microsecond; None for None, which leaves a field unset.

    Raises:
        ValueError: the time has no zone, so it is ambiguous.
    """
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise ValueError(f"a time needs its zone, got {moment!r}; use servicekit.database.utc_now()")
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def from_proto(stamp: Timestamp) -> datetime:
    """Returns the time in UTC, truncated to microseconds.

    An unset field is read as 1970: check `message.HasField` first where that matters.

    Raises:
        ValueError: the message is outside the years 1 to 9999, or its nanoseconds outside one second.
    """
    try:
        return stamp.ToDatetime(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"timestamp of {stamp.seconds} s and {stamp.nanos} ns must lie in the years 1 to 9999: {error}"
        ) from None
