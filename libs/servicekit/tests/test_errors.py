"""Errors as they are sent; libs/client tests that a client receives the same."""

from __future__ import annotations

import pytest
from google.rpc import error_details_pb2

from servicekit.errors import (
    DOMAIN,
    Aborted,
    AlreadyExists,
    Cancelled,
    CorruptObject,
    DeadlineExceeded,
    DomainError,
    FailedPrecondition,
    FieldViolation,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    to_status,
)
from servicekit.server.steps.errors import declared

EVERY_ERROR = [
    InvalidArgument("record.text", "string.min_len", "must not be empty", value=""),
    InvalidArgument.many([FieldViolation("a", "r.one", "bad"), FieldViolation("b", "R_TWO", "worse")]),
    NotFound("datanet", "datanets/unknown"),
    AlreadyExists("contributor", "datanets/d/contributors/c"),
    FailedPrecondition("NOT_EVALUATED", "it has no report", subject="models/m/versions/1", suite="hellaswag"),
    PermissionDenied("datanet.datanets.create", "ann"),
    Unauthenticated("TOKEN_EXPIRED", "the token expired"),
    ResourceExhausted("QUEUE_FULL", "64 answers are waiting", retry_after_s=1.25),
    Aborted("CONFLICT", "another change won"),
    Unavailable("CHAIN_DOWN", "no answer", retry_after_s=0.5, metadata={"rpc": "8545"}),
    Cancelled(),
    Unimplemented(),
    DeadlineExceeded(2.5),
    CorruptObject("sha256:aa", "sha256:bb"),
    Internal("0af7651916cd43dd8448eb211c80319c"),
]


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda e: type(e).__name__)
def test_every_status_carries_error_info_of_this_domain(error: DomainError) -> None:
    info = error_details_pb2.ErrorInfo()
    assert to_status(error).details[0].Unpack(info)
    assert (info.domain, info.reason) == (DOMAIN, error.reason)


def test_a_status_never_outgrows_what_http2_trailers_hold() -> None:
    long = "x" * 10_000
    limit = 6_000
    many = InvalidArgument.many(
        [FieldViolation(f"records[{i}].{long}"[:300], "rule", long) for i in range(500)]
    )
    assert len(to_status(many).SerializeToString()) < limit
    assert "\n" not in to_status(Unavailable("X", "one\ntwo")).message


@pytest.mark.parametrize(
    ("path", "logged"),
    [('labels["team"].name', "labels[].name"), ("a[2].b[3]", "a[].b[]"), ("[" * 2_000_000, "[]")],
    ids=["key", "numbers", "brackets"],
)
def test_the_log_names_a_field_without_the_callers_keys_in_linear_time(path: str, logged: str) -> None:
    """Two million brackets would take hours in a pattern that starts again at each of them."""
    assert declared(FieldViolation(path, "max_len", "is too long")) == logged
