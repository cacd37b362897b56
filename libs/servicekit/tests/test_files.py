"""Files are whole or not there, and what dead writers left does not pile up."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from servicekit.files import remove, replacing, write_whole


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "note.json"
    write_whole(path, "one")
    write_whole(path, b"two", mode=0o600)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert hidden(path.parent) == []


def fail_halfway(path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    write_whole(path, "one")
    with pytest.raises(OSError, match="No space left"):
        fail_halfway(path)
    assert path.read_text() == "one"
    assert hidden(tmp_path) == []


def test_what_a_dead_writer_left_goes_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    path = tmp_path / "note[1].json"  # a name that a pattern would read differently
    abandoned, young, other = (
        tmp_path / name for name in (".note[1].json.77-78", ".note[1].json.79-80", ".notes.json.77-78")
    )
    for left in (abandoned, young, other):
        left.write_text("half")
    for left in (abandoned, other):
        os.utime(left, (time.time() - 7200, time.time() - 7200))
    write_whole(path, "whole")
    assert hidden(tmp_path) == sorted([young.name, other.name])


def test_a_file_that_is_not_there_is_removed_all_the_same(tmp_path: Path) -> None:
    remove(tmp_path / "note.json")
    write_whole(tmp_path / "note.json", "one")
    remove(tmp_path / "note.json")
    assert list(tmp_path.iterdir()) == []
