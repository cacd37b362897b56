"""Errors reach a client as what they were."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

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
    from_rpc_error,
    from_status,
    to_status,
)

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
def test_an_error_survives_the_wire_with_class_reason_message_and_metadata(error: DomainError) -> None:
    back = from_status(status_pb2.Status.FromString(to_status(error).SerializeToString()))
    assert type(back) is type(error)
    assert (back.code, back.reason, back.message, back.metadata) == (
        error.code,
        error.reason,
        error.message,
        error.metadata,
    )


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda e: type(e).__name__)
def test_every_status_carries_error_info_of_this_domain(error: DomainError) -> None:
    info = error_details_pb2.ErrorInfo()
    assert to_status(error).details[0].Unpack(info)
    assert (info.domain, info.reason) == (DOMAIN, error.reason)


def test_each_wrong_field_is_named_with_its_rule() -> None:
    error = from_status(to_status(EVERY_ERROR[1]))
    assert isinstance(error, InvalidArgument)
    assert [(v.field, v.rule, v.message) for v in error.violations] == [
        ("a", "r.one", "bad"),
        ("b", "R_TWO", "worse"),
    ]


def test_when_to_retry_and_whose_state_is_wrong_survive_the_wire() -> None:
    full = from_status(to_status(ResourceExhausted("QUEUE_FULL", "full", retry_after_s=1.25)))
    blocked = from_status(to_status(FailedPrecondition("BLOCKED", "no", subject="models/m")))
    assert isinstance(full, ResourceExhausted)
    assert full.retry_after_s == 1.25
    assert isinstance(blocked, FailedPrecondition)
    assert blocked.subject == "models/m"


def test_a_status_never_outgrows_what_http2_trailers_hold() -> None:
    long = "x" * 10_000
    limit = 6_000
    many = InvalidArgument.many(
        [FieldViolation(f"records[{i}].{long}"[:300], "rule", long) for i in range(500)]
    )
    assert len(to_status(many).SerializeToString()) < limit
    assert "\n" not in to_status(Unavailable("X", "one\ntwo")).message


def test_an_error_that_grpc_made_itself_becomes_one_of_ours() -> None:
    made = grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "refused"
    )
    assert isinstance(from_rpc_error(made), Unavailable)
    unknown = grpc.aio.AioRpcError(
        grpc.StatusCode.UNIMPLEMENTED, grpc.aio.Metadata(), grpc.aio.Metadata(), "no"
    )
    assert isinstance(from_rpc_error(unknown), Unimplemented)


def test_details_of_a_foreign_server_are_read_as_far_as_they_go() -> None:
    foreign = status_pb2.Status(code=5, message="gone")
    error = from_status(foreign)
    assert (error.code, error.message) == (grpc.StatusCode.NOT_FOUND, "gone")
