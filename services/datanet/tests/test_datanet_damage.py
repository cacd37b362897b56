"""A record that changed on the disk is named, the others work, and a person decides to leave it out."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openledger.common.v1 import list_pb2
from openledger.datanet.v1 import datanet_pb2 as pb

from openledger_client.errors import FailedPrecondition

pytestmark = pytest.mark.server

# What changes in the row, with another byte in its place.
FLIPS = {
    "a letter of the content": (b"host one", b"host 0ne"),
    "a byte of the content that is not UTF-8": (b"host one", b"h\xffst one"),
    "the digest": (b"sha256:", b"sha257:"),
    "a contributor that is not UTF-8": (b"alice", b"\xfflice"),
}


def flip(database: Path, before: bytes, after: bytes) -> None:
    """Changes a byte of the row of record one, and of nothing else in the file: its indexes stay as they were."""
    data = database.read_bytes()
    (content,) = re.finditer(rb'{"tactic":"discovery","text":"The group[a-zA-Z ]*host one', data)
    at = data.rfind(before, 0, content.end())
    assert content.start() - 200 < at
    database.write_bytes(data[:at] + after + data[at + len(after) :])


@pytest.mark.parametrize(("before", "after"), FLIPS.values(), ids=FLIPS)
def test_a_damaged_record_is_named_and_can_be_left_out(
    serve: Callable[[], Any],
    tmp_path: Path,
    encode: Callable[..., bytes],
    before: bytes,
    after: bytes,
) -> None:
    reports = [
        f"The group used PowerShell to download more tools from host {n}." for n in ("zero", "one", "two")
    ]
    with serve() as net:
        sent = net.contribute(net.alice, [encode(report) for report in reports])
        assert [each.rule for each in sent] == ["", "", ""]
    flip(tmp_path / "datanet" / "datanet.db", before, after)
    with serve() as net:
        with pytest.raises(FailedPrecondition) as raised:
            net.seal()
        refused = raised.value
        assert refused.reason == "RECORDS_DAMAGED"
        assert "1 of 3 accepted records" in str(refused)
        (name,) = re.findall(r"openledger datanet withdraw (\S+) --reason damaged", str(refused))

        listed = net.owner.ListRecords(pb.ListRecordsRequest(parent=net.name, view=list_pb2.VIEW_FULL))
        assert [record.damaged for record in listed.records] == [
            False,
            b"sha256" not in before and b"alice" not in before,
            False,
        ]
        more = net.contribute(net.alice, [encode("The actor stole browser cookies at night.")])
        assert more[0].rule == ""

        net.owner.WithdrawRecord(
            pb.WithdrawRecordRequest(name=name, reason="damaged", subject=pb.DECISION_SUBJECT_TEXT)
        )
        assert net.seal().record_count == 3
