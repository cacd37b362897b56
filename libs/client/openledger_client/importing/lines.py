"""Lines of a file of any size, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from openledger_client.importing.rows import MAX_ROW_BYTES
from openledger_client.importing.source import OpenSource


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line, or a piece of a line that is longer than `MAX_ROW_BYTES`."""

    number: int
    """From 1; all pieces of a line have its number."""
    offset: int
    """Of its first byte in the text, from 0."""
    data: bytes
    """Without the line feed."""
    is_last: bool
    """Whether the line ends with this piece."""
    end: int
    """How far the file on the disk is read."""


class NotUtf8(ValueError):
    """A line has a byte that is not UTF-8. The message says which."""


def lines(source: OpenSource, terminator: bytes = b"\n") -> Iterator[Line]:
    """Yields all lines, in order. Raises InputError where the file cannot be read any further."""
    number, offset = 1, 0
    begun: list[bytes] = []  # of the line that the last block ended in
    while block := source.read():
        offset, at = offset or source.mark_bytes, 0
        *complete, rest = block.split(terminator)
        for data in complete:
            at += len(data) + len(terminator)
            if begun:
                data, begun = b"".join([*begun, data]), []
            yield Line(number=number, offset=offset, data=data, is_last=True, end=source.position(at))
            number, offset = number + 1, offset + len(data) + len(terminator)
        begun.append(rest)
        if sum(map(len, begun)) > MAX_ROW_BYTES:
            piece, begun = b"".join(begun), []
            yield Line(
                number=number, offset=offset, data=piece, is_last=False, end=source.position(len(block))
            )
            offset += len(piece)
    yield Line(number=number, offset=offset, data=b"".join(begun), is_last=True, end=source.position(0))


def decoded(line: Line) -> str:
    """Returns a line's text. Raises NotUtf8, which names the byte."""
    try:
        return line.data.decode()
    except UnicodeDecodeError as error:
        at = error.start
        raise NotUtf8(
            f"byte {at + 1:,} of line {line.number:,} (0x{line.data[at]:02x}, byte {line.offset + at + 1:,} of the text) "
            "is not UTF-8; if the file has another encoding, give it, e.g. --encoding windows-1252"
        ) from None
