"""Exceptions become statuses, in one place. A caller never sees a traceback; the log always has it."""

from __future__ import annotations

import asyncio
import errno
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from servicekit.database.engine import is_away, is_conflict
from servicekit.errors import (
    Aborted,
    DomainError,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
    to_status,
)
from servicekit.errors.status import DETAILS_KEY
from servicekit.server.call import Call
from servicekit.telemetry import current_trace_id

logger = logging.getLogger(__name__)

_KEY = re.compile(r"\[.*?\]")
_MOST_FIELDS = 8

_DEFECTS = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS, grpc.StatusCode.UNKNOWN})


@asynccontextmanager
async def errors(call: Call) -> AsyncIterator[None]:
    """Ends the RPC with the status of what was raised."""
    try:
        yield
        call.code = _code_set_by_handler(call)
    except grpc.aio.AbortError:  # gRPC's own servicers (health, reflection)
        call.code = _code_set_by_handler(call)
        raise
    except asyncio.CancelledError:
        call.code = grpc.StatusCode.CANCELLED
        raise
    except Exception as error:
        await _end(call, error)


async def _end(call: Call, error: Exception) -> None:
    known = error if isinstance(error, DomainError) else _translate(error)
    answer = Internal(current_trace_id()) if known is None else known
    call.code = answer.code
    extra = {"method": call.method, "code": answer.code.name, "reason": answer.reason}
    if answer.code in _DEFECTS:
        logger.error("rpc failed", exc_info=error, extra=extra)
    else:
        # Not its message: that quotes what the caller sent, and a log must hold nobody's data.
        logger.info("rpc refused", extra={**extra, **_fields(answer)})
    status = to_status(answer)
    # Not abort_with_status: it needs grpcio-status's wrapper for the same three values.
    trailers = ((DETAILS_KEY, status.SerializeToString()),)
    await call.context.abort(answer.code, status.message, trailers)


def _fields(answer: DomainError) -> dict[str, list[str]]:
    """The fields that were wrong and the rules they broke, without their values; a map's keys are values as well."""
    if not isinstance(answer, InvalidArgument):
        return {}
    return {"fields": [f"{_KEY.sub('[]', v.field)}: {v.rule}" for v in answer.violations[:_MOST_FIELDS]]}


def _translate(error: Exception) -> DomainError | None:
    """What exceptions of the things below us mean to a caller; none for a defect."""
    if isinstance(error, NotImplementedError):  # what generated servicers raise
        return Unimplemented()
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceExhausted("DISK_FULL", "the disk of this service is full")
    if isinstance(error, OperationalError) and "disk is full" in str(error.orig):
        return ResourceExhausted("DISK_FULL", "the disk of this service's database is full")
    if is_conflict(error):
        return Aborted("TRANSACTION_CONFLICT", "another change won, try again", retry_after_s=0.1)
    if is_away(error):
        return Unavailable("DATABASE_UNAVAILABLE", "the database does not answer", retry_after_s=1)
    if isinstance(error, PoolTimeout):
        return Unavailable(
            "DATABASE_BUSY", "all of this service's database connections are in use", retry_after_s=1
        )
    if isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.UNAVAILABLE:
        return Unavailable(
            "DEPENDENCY_UNAVAILABLE", "a service that this one needs does not answer", retry_after_s=1
        )
    return None


def _code_set_by_handler(call: Call) -> grpc.StatusCode:
    """gRPC gives codes back as it was given them: a StatusCode, its number, or nothing for OK."""
    code: object = call.context.code()
    if isinstance(code, grpc.StatusCode):
        return code
    return next(
        (known for known in grpc.StatusCode if known.value[0] == (code or 0)), grpc.StatusCode.UNKNOWN
    )
