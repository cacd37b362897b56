"""The write-ahead log keeps what was appended, in order, through kills and torn writes, within its bounds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.wal import Position, Wal, WalFull, WalInUse, frames


def read_all(wal: Wal, start: Position | None = None) -> tuple[list[bytes], Position]:
    position = wal.position() if start is None else start
    found: list[bytes] = []
    while True:
        payloads, position = wal.read(position)
        if not payloads:
            return found, position
        found += payloads


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.wal"))


def test_what_was_appended_is_read_in_order(tmp_path: Path) -> None:
    wal = Wal(tmp_path)
    for i in range(1000):
        wal.append(b"%d" % i)
    assert read_all(wal)[0] == [b"%d" % i for i in range(1000)]
    wal.close()


def test_reading_continues_where_it_stopped(tmp_path: Path) -> None:
    wal = Wal(tmp_path)
    wal.append(b"a")
    _, position = read_all(wal)
    assert wal.read(position) == ([], position)
    wal.append(b"b")
    assert read_all(wal, position)[0] == [b"b"]
    wal.close()


def test_records_survive_a_restart_and_what_was_released_does_not_come_again(tmp_path: Path) -> None:
    wal = Wal(tmp_path)
    wal.append(b"sent")
    _, position = read_all(wal)
    wal.release(position)
    wal.append(b"unsent")
    wal.close()
    wal = Wal(tmp_path)
    wal.append(b"later")
    assert read_all(wal)[0] == [b"unsent", b"later"]
    wal.close()


def test_segments_are_cut_and_deleted_once_sent(tmp_path: Path) -> None:
    wal = Wal(tmp_path, segment_bytes=1000, max_bytes=100_000)
    payloads = [bytes([i]) * 100 for i in range(50)]
    for payload in payloads:
        wal.append(payload)
    assert len(segments(tmp_path)) == 6
    assert all(path.stat().st_size <= 1000 for path in segments(tmp_path))
    found, position = read_all(wal)
    assert found == payloads
    wal.release(position)
    assert len(segments(tmp_path)) == 1
    wal.close()


def test_a_restart_after_everything_was_sent_reuses_no_segment_number(tmp_path: Path) -> None:
    for value in (b"a", b"b", b"c"):
        wal = Wal(tmp_path)
        wal.append(value)
        found, position = read_all(wal)
        assert found == [value]
        wal.release(position)
        wal.close()


def test_a_full_log_refuses_and_keeps_what_it_has(tmp_path: Path) -> None:
    wal = Wal(tmp_path, segment_bytes=1000, max_bytes=2000)
    for _ in range(20):
        wal.append(b"x" * 92)
    with pytest.raises(WalFull, match="at most 2000 bytes"):
        wal.append(b"x" * 92)
    assert sum(path.stat().st_size for path in segments(tmp_path)) <= 2000
    found, position = read_all(wal)
    assert len(found) == 20
    wal.release(position)
    wal.append(b"fits again")
    assert read_all(wal, position)[0] == [b"fits again"]
    wal.close()


@pytest.mark.parametrize("cut", range(1, 20))
def test_a_torn_last_record_is_cut_off_and_the_rest_is_kept(tmp_path: Path, cut: int) -> None:
    wal = Wal(tmp_path)
    wal.append(b"whole")
    wal.append(b"torn in two")  # 19 bytes with its head
    wal.close()
    (segment,) = segments(tmp_path)
    os.truncate(segment, segment.stat().st_size - cut)
    wal = Wal(tmp_path)
    wal.append(b"after")
    assert read_all(wal)[0] == [b"whole", b"after"]
    wal.close()


def test_a_damaged_place_ends_its_segment_only(tmp_path: Path) -> None:
    wal = Wal(tmp_path, segment_bytes=100, max_bytes=1000)
    for i in range(6):  # two a segment
        wal.append(b"%d" % i * 40)
    wal.close()
    damaged = segments(tmp_path)[1]
    data = bytearray(damaged.read_bytes())
    data[60] ^= 1
    damaged.write_bytes(data)
    wal = Wal(tmp_path)
    found, _ = read_all(wal)
    assert [payload[:1] for payload in found] == [b"0", b"1", b"2", b"4", b"5"]
    wal.close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    wal = Wal(tmp_path)
    with pytest.raises(WalInUse, match="used by another process"):
        Wal(tmp_path)
    wal.close()
    Wal(tmp_path).close()


def test_an_empty_or_monstrous_payload_is_refused(tmp_path: Path) -> None:
    wal = Wal(tmp_path)
    for payload in (b"", b"x" * (frames.MAX_PAYLOAD + 1)):
        with pytest.raises(ValueError, match="a payload holds"):
            wal.append(payload)
    wal.close()


@given(st.lists(st.binary(min_size=1, max_size=50)), st.data())
def test_frames_decode_to_the_longest_undamaged_beginning(payloads: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(frames.encode(payload) for payload in payloads)
    cut = data.draw(st.integers(0, len(whole)))
    found, length = frames.decode(whole[:cut])
    assert found == payloads[: len(found)]
    assert length == sum(len(frames.encode(payload)) for payload in found)
    assert len(found) == len(payloads) or cut < length + len(frames.encode(payloads[len(found)]))


_APPEND = """
import sys
from pathlib import Path
from servicekit.wal import Wal
wal = Wal(Path(sys.argv[1]), segment_bytes=20_000, max_bytes=10**9)
i = 0
while True:
    wal.append(b"%d" % i)
    i += 1
    if i % 1000 == 0:
        print(i, flush=True)
"""


@pytest.mark.server
def test_what_was_appended_before_kill_minus_9_is_there(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", _APPEND, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = 0
    while said < 5000:
        said = int(process.stdout.readline())
    process.kill()
    process.wait()
    wal = Wal(tmp_path)
    found, _ = read_all(wal)
    assert len(found) >= said
    assert found == [b"%d" % i for i in range(len(found))]
    wal.close()


_FILL = """
import resource, sys
from pathlib import Path
from servicekit.wal import Wal, WalFull
wal = Wal(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1010, resource.RLIM_INFINITY))  # the kernel takes part of a write, as a full disk does
count = 0
try:
    while True:
        wal.append(b"x" * 92)  # 100 with its head
        count += 1
except WalFull as error:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    wal.append(b"fits again")
    print(count, error, flush=True)
wal.close()
"""


@pytest.mark.server
def test_a_disk_that_takes_half_a_record_leaves_none_of_it(tmp_path: Path) -> None:
    said = subprocess.run([sys.executable, "-c", _FILL, tmp_path], capture_output=True, text=True, check=True)
    assert said.stdout.startswith("10 write-ahead log")
    assert "the disk is full" in said.stdout
    wal = Wal(tmp_path)
    assert read_all(wal)[0] == [b"x" * 92] * 10 + [b"fits again"]
    wal.close()
