"""What a server raises reaches the caller as the class of the same name, with the same fields."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import status_pb2

from openledger_client import errors
from openledger_client.errors import from_rpc_error, from_status
from servicekit import errors as raised
from servicekit.errors import FieldViolation, to_status

EVERY_ERROR = [
    raised.InvalidArgument("record.text", "string.min_len", "must not be empty", value=""),
    raised.InvalidArgument.many([FieldViolation("a", "r.one", "bad"), FieldViolation("b", "R_TWO", "worse")]),
    raised.NotFound("datanet", "datanets/unknown"),
    raised.AlreadyExists("contributor", "datanets/d/contributors/c"),
    raised.FailedPrecondition("NOT_EVALUATED", "it has no report", subject="models/m/versions/1", suite="x"),
    raised.PermissionDenied("datanet.datanets.create", "ann"),
    raised.Unauthenticated("TOKEN_EXPIRED", "the token expired"),
    raised.ResourceExhausted("QUEUE_FULL", "64 answers are waiting", retry_after_s=1.25),
    raised.Aborted("CONFLICT", "another change won"),
    raised.Unavailable("CHAIN_DOWN", "no answer", retry_after_s=0.5, metadata={"rpc": "8545"}),
    raised.Cancelled(),
    raised.Unimplemented(),
    raised.DeadlineExceeded(2.5),
    raised.Internal("0af7651916cd43dd8448eb211c80319c"),
]


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda e: type(e).__name__)
def test_an_error_keeps_class_code_reason_message_and_metadata(error: raised.DomainError) -> None:
    received = from_status(status_pb2.Status.FromString(to_status(error).SerializeToString()))
    assert type(received) is getattr(errors, type(error).__name__)
    assert (received.code, received.reason, received.message, received.metadata) == (
        error.code,
        error.reason,
        error.message,
        error.metadata,
    )
    assert received.retry_after_s == getattr(error, "retry_after_s", None)
    assert received.subject == getattr(error, "subject", "")


def test_corrupt_objects_are_data_loss() -> None:
    assert isinstance(from_status(to_status(raised.CorruptObject("sha256:aa", "sha256:bb"))), errors.DataLoss)


def test_each_wrong_field_keeps_its_rule() -> None:
    found = from_status(to_status(EVERY_ERROR[1]))
    assert [(v.field, v.rule, v.message) for v in found.violations] == [
        ("a", "r.one", "bad"),
        ("b", "R_TWO", "worse"),
    ]


def test_an_error_that_grpc_made_itself_has_its_class() -> None:
    empty = grpc.aio.Metadata()
    assert isinstance(
        from_rpc_error(grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, empty, empty, "refused")),
        errors.Unavailable,
    )


def test_a_status_without_details_is_read_as_far_as_it_goes() -> None:
    found = from_status(status_pb2.Status(code=5, message="gone"))
    assert (type(found), found.reason, found.message) == (errors.NotFound, "NOT_FOUND", "gone")


def test_every_code_has_its_class() -> None:
    for code in set(grpc.StatusCode) - {
        grpc.StatusCode.OK,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.OUT_OF_RANGE,
    }:
        assert errors.of_code(code, "x").code is code
        assert type(errors.of_code(code, "x")) is not errors.OpenLedgerError
    assert errors.of_code(grpc.StatusCode.OUT_OF_RANGE, "x").code is grpc.StatusCode.OUT_OF_RANGE
