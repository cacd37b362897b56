"""Turns exceptions into statuses, in one place. A caller never sees a traceback; the log always has the one of a defect."""

from __future__ import annotations

import asyncio
import errno
import logging
import re
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from servicekit.database.engine import is_conflict, is_damaged, is_outage
from servicekit.errors import (
    UNKNOWN_FIELD,
    Aborted,
    DamagedDatabase,
    DomainError,
    FieldViolation,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
)
from servicekit.server.call import Call
from servicekit.telemetry.traces import current_trace_id

logger = logging.getLogger(__name__)

# Possessive, and the end is optional: a caller's key of many brackets is read once.
_KEY = re.compile(r"\[[^\]]*+\]?")
_MOST_FIELDS = 8

_DEFECTS = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS, grpc.StatusCode.UNKNOWN})


@asynccontextmanager
async def errors(call: Call) -> AsyncIterator[None]:
    """Refuses the call with the status of the exception."""
    try:
        yield
        call.code = call.handler_code()
    except grpc.aio.AbortError:  # raised by gRPC's own servicers (health, reflection), which have answered
        call.code = call.handler_code()
        raise
    except asyncio.CancelledError:
        call.code = grpc.StatusCode.CANCELLED
        raise
    except Exception as error:  # noqa: BLE001 - every error becomes a status
        answer = _known(call, error)
        # The traceback refers to what the handler had, the request among it, until Python's collector runs.
        traceback.clear_frames(error.__traceback__)
        await call.refuse(answer)


def _known(call: Call, error: Exception) -> DomainError:
    """Returns what the caller is told, and logs it."""
    known = error if isinstance(error, DomainError) else _translate(error)
    answer = Internal(current_trace_id()) if known is None else known
    call.code = answer.code
    extra = {"method": call.method, "code": answer.code.name, "reason": answer.reason}
    if answer.code in _DEFECTS:
        logger.error("call failed", exc_info=error, extra=extra)
    else:
        # Without the message: it quotes what the caller sent, and the log must not hold callers' data.
        logger.info("call refused", extra={**extra, **_fields(answer)})
    return answer


def _fields(answer: DomainError) -> dict[str, list[str]]:
    """Returns the fields that were wrong and the rules they broke, without what the caller wrote: values, keys of a
    map, and the name of a field that does not exist."""
    if not isinstance(answer, InvalidArgument):
        return {}
    return {"fields": [f"{declared(one)}: {one.rule}" for one in answer.violations[:_MOST_FIELDS]]}


def declared(violation: FieldViolation) -> str:
    path = _KEY.sub("[]", violation.field)
    if violation.rule == UNKNOWN_FIELD:
        return f"{path.rpartition('.')[0]}.[]".lstrip(".")
    return path


def _translate(error: Exception) -> DomainError | None:
    """Returns what an exception of a library or a dependency means to a caller; None for a defect."""
    if isinstance(error, NotImplementedError):  # what generated servicers raise
        return Unimplemented()
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceExhausted("DISK_FULL", "the disk of this service is full")
    if isinstance(error, OperationalError) and "disk is full" in str(error.orig):
        return ResourceExhausted("DISK_FULL", "the disk of this service's database is full")
    if isinstance(error, OperationalError) and "disk I/O error" in str(error.orig):
        return Unavailable(
            "DATABASE_UNAVAILABLE", "the disk of this service's database cannot be read or written"
        )
    if is_conflict(error):
        return Aborted("TRANSACTION_CONFLICT", "another change won, try again", retry_after_s=0.1)
    if is_outage(error):
        return Unavailable("DATABASE_UNAVAILABLE", "the database does not answer", retry_after_s=1)
    if is_damaged(error):
        return DamagedDatabase()
    if isinstance(error, PoolTimeout):
        return Unavailable(
            "DATABASE_BUSY", "all of this service's database connections are in use", retry_after_s=1
        )
    if isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.UNAVAILABLE:
        return Unavailable(
            "DEPENDENCY_UNAVAILABLE", "a service that this one needs does not answer", retry_after_s=1
        )
    return None
