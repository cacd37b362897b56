"""What the import of a GGUF file refuses, and how."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from modelkit.weights.gguf_import import GgufUnavailable, InvalidGguf, import_gguf
from servicekit.objects import ObjectStore


def import_(path: Path) -> str:
    return import_gguf(path, ObjectStore(path.parent / "objects"), path.parent / "cache")


def test_a_missing_file_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(GgufUnavailable, match=r"model\.gguf"):
        import_(tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not GGUF"),
        (b"PK\x03\x04 something else", "is not GGUF"),
        (b"GGUF", "cannot be converted"),
        (b"GGUF" + struct.pack("<IQQ", 99, 0, 0), "cannot be converted"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "cannot be converted"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1 << 60), "cannot be converted"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + b"\xff" * 64, "cannot be converted"),
    ],
)
def test_a_file_that_is_no_model_is_refused_by_name(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "model.gguf").write_bytes(content)
    with pytest.raises(InvalidGguf, match=rf"model\.gguf {reason}"):
        import_(tmp_path / "model.gguf")
    assert list((tmp_path / "cache").glob(".gguf-*")) == []
