"""A snapshot's bytes and root depend on its records alone, and a changed byte is found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity import snapshot
from identity.digest import digest_json
from identity.snapshot import CorruptSnapshot, SnapshotLine


def line(text: str) -> SnapshotLine:
    record = {"text": text, "label": "execution"}
    name = digest_json(record)
    return SnapshotLine(
        record_digest=name,
        cluster=name,
        split="train",
        contributor="datanets/d/contributors/c",
        record=record,
    )


LINES = [line(f"text {n}") for n in range(9)]
TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=12)


def test_order_in_which_records_come_does_not_change_the_bytes() -> None:
    assert snapshot.write_lines(reversed(LINES)) == snapshot.write_lines(LINES)


@given(st.sets(TEXTS.map(lambda text: text.encode()), max_size=8))
def test_what_is_written_is_read(texts: set[bytes]) -> None:
    lines = {one.record_digest: one for one in (line(text.decode()) for text in texts)}
    read = list(snapshot.read_lines(snapshot.write_lines(lines.values())))
    assert [one.record_digest for one in read] == sorted(lines)


def test_every_line_is_proven_under_the_root() -> None:
    data = snapshot.write_lines(LINES)
    raw = snapshot.line_bytes(data)
    for index, leaf in enumerate(raw):
        assert snapshot.verify(snapshot.root(data), leaf, snapshot.proof(data, index), index, len(raw))


def test_a_record_under_a_wrong_digest_is_not_written() -> None:
    wrong = SnapshotLine(
        record_digest=LINES[0].record_digest,
        cluster=LINES[0].cluster,
        split="train",
        contributor="c",
        record={"text": "other"},
    )
    with pytest.raises(CorruptSnapshot, match="is not the record's digest"):
        snapshot.write_lines([wrong])


def test_a_record_stands_once() -> None:
    with pytest.raises(CorruptSnapshot, match="stands twice"):
        snapshot.write_lines([LINES[0], LINES[0]])


def test_any_changed_byte_is_refused_on_reading_or_changes_the_root() -> None:
    data = snapshot.write_lines(LINES[:3])
    root = snapshot.root(data)
    for position in range(len(data)):
        changed = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        try:
            list(snapshot.read_lines(changed))
        except (CorruptSnapshot, UnicodeDecodeError):
            continue
        assert snapshot.root(changed) != root


def test_a_line_out_of_order_is_named() -> None:
    first, second = snapshot.line_bytes(snapshot.write_lines(LINES[:2]))
    with pytest.raises(CorruptSnapshot) as caught:
        list(snapshot.read_lines(second + b"\n" + first + b"\n"))
    assert caught.value.line == 2


def test_a_cut_object_is_refused() -> None:
    with pytest.raises(CorruptSnapshot, match="no newline"):
        list(snapshot.read_lines(snapshot.write_lines(LINES[:2])[:-1]))
