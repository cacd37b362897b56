"""Names and times on the border between messages and the domain."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from identity.names import BaseModelName, DatanetName, ModelVersionName
from servicekit import names, timestamps
from servicekit.errors import InvalidArgument


def test_a_wrong_name_is_refused_with_the_field_the_fault_and_the_form() -> None:
    with pytest.raises(InvalidArgument) as refused:
        names.parse("parent", DatanetName, "datanets/")
    (violation,) = refused.value.violations
    assert (violation.field, violation.rule, violation.value) == ("parent", "resource_name", "datanets/")
    assert "expected datanets/{datanet}" in violation.message


def test_a_field_may_hold_a_name_of_several_kinds() -> None:
    kinds = (ModelVersionName, BaseModelName)
    assert names.parse_one_of("model", "baseModels/tiny", *kinds) == BaseModelName("tiny")
    with pytest.raises(
        InvalidArgument, match=r"model: .*'tiny' is not the name of a model version or base model"
    ):
        names.parse_one_of("model", "tiny", *kinds)


@given(st.datetimes(timezones=st.timezones()))
def test_a_moment_survives_the_message_to_the_microsecond(moment: datetime) -> None:
    try:
        in_utc = moment.astimezone(UTC)
    except OverflowError:
        return  # within a zone's offset of the years 1 and 9999
    # Not `== moment`: Python never holds a local time that its zone repeats equal to a time of another zone (PEP 495).
    assert timestamps.from_proto(timestamps.to_proto(moment)) == in_utc


def test_no_moment_leaves_the_field_unset_and_a_moment_without_zone_is_refused() -> None:
    assert timestamps.to_proto(None) is None
    with pytest.raises(ValueError, match="needs its zone"):
        timestamps.to_proto(datetime(2026, 1, 1))
    east = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert timestamps.from_proto(timestamps.to_proto(east)).isoformat() == "2026-01-01T00:00:00+00:00"


def test_a_timestamp_outside_of_the_calendar_is_refused_with_its_value() -> None:
    with pytest.raises(ValueError, match="1000000000000000 s and 0 ns must lie in the years 1 to 9999"):
        timestamps.from_proto(Timestamp(seconds=10**15))
