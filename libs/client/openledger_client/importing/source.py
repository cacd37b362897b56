"""A text file's bytes: decompressed, without a byte order mark, in UTF-8."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from openledger_client.importing.rows import InputError

BLOCK_BYTES = 256 << 10
SAMPLE_BYTES = 64 << 10
"""From how much of a file its dialect is derived."""

_GZIP = b"\x1f\x8b"
_WIDE = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Source:
    """One file. Each `open` begins again at its first byte."""

    def __init__(self, path: Path, encoding: str = "utf-8") -> None:
        """Raises InputError if there is no such encoding or no such file."""
        try:
            bytes(4).decode(encoding)  # refuses codecs that are no text, such as "hex"
            self.encoding = codecs.lookup(encoding).name
        except (LookupError, UnicodeError):
            message = f"{encoding!r} is not the name of an encoding; examples are utf-8, utf-16, windows-1252"
            raise InputError.of("encoding", "known", message) from None
        self.path = path
        with reading(path) as raw:
            self.size = raw.seek(0, 2)

    @contextmanager
    def open(self) -> Iterator[OpenSource]:
        """Yields the file's bytes from the first on. Raises InputError if it cannot be opened."""
        with reading(self.path) as raw:
            yield OpenSource(self.path, raw, self.encoding)

    def sample(self) -> tuple[bytes, bool]:
        """Returns the first bytes as UTF-8, at least `SAMPLE_BYTES` of them, and whether that is all. Raises InputError."""
        found = b""
        with self.open() as source:
            while len(found) < SAMPLE_BYTES:
                block = source.read()
                if not block:
                    return found, True
                found += block
        return found, False


class OpenSource:
    """A file that is being read."""

    def __init__(self, path: Path, raw: IO[bytes], encoding: str) -> None:
        self._path = path
        self._raw = raw
        compressed = raw.read(len(_GZIP)) == _GZIP
        raw.seek(0)
        self._file = gzip.GzipFile(fileobj=raw) if compressed else raw
        self._decoder = None if encoding == "utf-8" else codecs.getincrementaldecoder(encoding)()
        self._encoding = encoding
        self._read_bytes = 0
        self._lines = 0
        self.mark_bytes = 0
        """Bytes of the byte order mark that was taken off."""
        self._block_began = 0
        self._block_bytes = 0

    def position(self, at: int) -> int:
        """Returns about how many bytes of the file on the disk hold the text up to byte `at` of the last block."""
        read = self._raw.tell() - self._block_began
        return self._block_began + read * at // max(1, self._block_bytes)

    def read(self) -> bytes:
        """Returns the next bytes, as UTF-8 that is not checked yet unless it was decoded; b"" at the end. Raises InputError."""
        self._block_began = self._raw.tell()
        text = self._next()
        self._block_bytes = len(text)
        return text

    def _next(self) -> bytes:
        while True:
            block = self._block()
            first = self._read_bytes == 0
            text = self._converted(block)
            if first and self._decoder is None:
                text = self._without_mark(text)
            if text or not block:
                return text

    def _block(self) -> bytes:
        try:
            return self._file.read(BLOCK_BYTES)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            message = f"{self._path}: the compressed file is damaged or incomplete: {error}"
            raise InputError.of("file", "compression", message) from None
        except OSError as error:
            raise unreadable(self._path, error) from None

    def _converted(self, block: bytes) -> bytes:
        before, self._read_bytes = self._read_bytes, self._read_bytes + len(block)
        if self._decoder is None:
            return block
        kept = len(self._decoder.getstate()[0])
        try:
            text = self._decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            line = self._lines + 1 + error.object[: error.start].count(b"\n")
            message = (
                f"{self._path}: line {line:,}, byte {before - kept + error.start + 1:,}: not {self._encoding}"
            )
            raise InputError.of("file", "encoding", message) from None
        self._lines += text.count("\n")
        # Python takes the mark off for "utf-16", not for "utf-16-le".
        return (text.removeprefix("\ufeff") if before == 0 else text).encode()

    def _without_mark(self, block: bytes) -> bytes:
        if block.startswith(_WIDE):
            name = "utf-32" if block.startswith(_WIDE[:2]) else "utf-16"
            message = f"{self._path}: begins with the byte order mark of {name}; give --encoding {name}"
            raise InputError.of("file", "encoding", message)
        if not block.startswith(codecs.BOM_UTF8):
            return block
        self.mark_bytes = len(codecs.BOM_UTF8)
        return block[self.mark_bytes :]


@contextmanager
def reading(path: Path) -> Iterator[IO[bytes]]:
    """Yields a file that is open for reading bytes. Raises InputError if it cannot be opened."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise unreadable(path, error) from None
    with file:
        if not file.seekable():
            message = (
                f"{str(path)!r} is a pipe or a device; a file is needed, because it is read more than once"
            )
            raise InputError.of("file", "readable", message)
        yield file


def unreadable(path: Path, error: OSError) -> InputError:
    """Returns the error of a file that cannot be read."""
    return InputError.of("file", "readable", f"{str(path)!r} cannot be read: {error.strerror}")
