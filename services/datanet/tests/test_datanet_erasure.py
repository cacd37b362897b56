"""A withdrawn text leaves the disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openledger.datanet.v1 import datanet_pb2 as pb

from servicekit.testing.waiting import eventually

pytestmark = pytest.mark.server


def canary(number: int) -> bytes:
    return f"canary{number:04}canary".encode()


def found_below(folder: Path, numbers: range) -> set[int]:
    """The canaries that any file still holds."""
    found: set[int] = set()
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        found |= {number for number in numbers if canary(number) in content}
    return found


def test_withdrawn_texts_leave_every_file_of_the_state_folder(
    own_net: Any, tmp_path: Path, encode: Callable[..., bytes]
) -> None:
    # Long ones have pages of their own, short ones share a page. A snapshot is sealed after them.
    lengths = [1] * 60 + [100] * 20
    texts = [
        f"{canary(number).decode()} used PowerShell to download tools from host {number}"
        for number in range(len(lengths))
    ]
    records = [encode(text, source=text * length) for text, length in zip(texts, lengths, strict=True)]
    sent = own_net.contribute(own_net.alice, records)
    assert [each.rule for each in sent] == [""] * len(sent)
    everything = range(len(sent))
    # Another contributor sends them too: refused copies must not outlive the texts.
    assert {each.rule for each in own_net.contribute(own_net.bob, records)} == {"exact_duplicate"}
    assert found_below(tmp_path, everything) == set(everything)
    contributor = own_net.client(own_net.alice)
    for each in sent[::2]:
        name = f"{own_net.name}/records/{each.digest.removeprefix('sha256:')}"
        contributor.WithdrawRecord(pb.WithdrawRecordRequest(name=name, reason="mine"))
    kept = set(everything[1::2])
    eventually(lambda: found_below(tmp_path, everything) == kept)
    own_net.seal()
    assert found_below(tmp_path, everything) == kept


def files_with(folder: Path, number: int) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and canary(number) in path.read_bytes()}


def test_of_a_text_that_was_sealed_and_then_withdrawn_one_object_is_left(
    own_net: Any, tmp_path: Path, encode: Callable[..., bytes]
) -> None:
    """A sealed snapshot never changes: docs/state.md says how an operator erases its records object."""
    texts = [
        f"{canary(number).decode()} used PowerShell to download tools from host {number}" for number in (1, 2)
    ]
    sent = own_net.contribute(own_net.alice, [encode(text) for text in texts])
    digest = own_net.seal().records_digest.removeprefix("sha256:")
    name = f"{own_net.name}/records/{sent[0].digest.removeprefix('sha256:')}"
    own_net.client(own_net.alice).WithdrawRecord(pb.WithdrawRecordRequest(name=name, reason="mine"))
    (records,) = tmp_path.rglob(f"sha256/{digest[:2]}/{digest[2:]}")
    eventually(lambda: files_with(tmp_path, 1) == {records}, "the text is in no other file")
