"""The files of a write-ahead log: numbered segments, a lock, and the sender's position."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from servicekit import crash, private
from servicekit.delivery import metrics as delivery_metrics
from servicekit.files import sync_folder, write_whole
from servicekit.telemetry.metrics import saturation
from servicekit.wal import frames

logger = logging.getLogger(__name__)
crash.primitive(__name__)

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_LAST_SYNC_S = 30.0
"""Longest that closing waits for a disk that does not answer."""
_CHUNK_BYTES = frames.MAX_PAYLOAD + frames.OVERHEAD


class WalFull(Exception):
    """The log, or the disk, is full; nothing was appended and nothing was dropped."""


class WalInUse(Exception):
    """Another process has the folder open."""


class Position(NamedTuple):
    """A position between two records: the number of a segment and a byte offset in it."""

    segment: int
    offset: int


class Wal:
    """A write-ahead log in `folder`, for one process at a time. `append` may be called by any thread."""

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int = 16 << 20,
        max_bytes: int = 1 << 30,
        fsync_every_s: float = 0.05,
    ) -> None:
        """Opens existing segments, removes an incomplete record at their end, and begins a new segment.

        `max_bytes` limits the size of all files; it must allow at least two segments. Raises WalInUse.
        """
        if max_bytes < 2 * segment_bytes:
            raise ValueError(f"max_bytes {max_bytes} is less than two segments of {segment_bytes}")
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._max_bytes = max_bytes
        self._fsync_every_s = fsync_every_s
        private.folder(folder)
        self._process_lock = private.file(folder / "lock").open("w")
        try:
            fcntl.flock(self._process_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._process_lock.close()
            raise WalInUse(f"write-ahead log {folder} is used by another process") from None
        self._sizes = {int(path.stem): path.stat().st_size for path in folder.glob("*.wal")}
        self._repair_last()
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._dirty = False
        self._rolled: list[int] = []  # file descriptors of full segments, to be fsynced and closed
        self._current = max([*self._sizes, self.position().segment], default=0)
        self._descriptor = -1
        self._begin_segment()
        self._sent = self.position()
        saturation("write_ahead_log", self.unsent_bytes, max_bytes)
        delivery_metrics.WAL_BYTES.set_function(self.unsent_bytes)
        self._closing = threading.Event()
        self._syncer = threading.Thread(target=self._sync_often, name="wal-fsync", daemon=True)
        self._syncer.start()

    def append(self, payload: bytes) -> None:
        """Writes one record at the end. When this returns, the record survives a kill of the process.

        Raises WalFull (nothing was written), or ValueError for an empty or too large payload.
        """
        frame = frames.encode(payload)
        with self._lock:
            size = self._sizes[self._current]
            if size + len(frame) > self._segment_bytes and size > 0:
                self._roll()
                size = 0
            if self._total + len(frame) > self._max_bytes:
                delivery_metrics.WAL_REFUSED.inc()
                raise WalFull(f"write-ahead log holds {self._total} of at most {self._max_bytes} bytes")
            crash.point("before append")
            self._write(frame, size)
            crash.point("after append")
            self._sizes[self._current] = size + len(frame)
            self._total += len(frame)
            self._dirty = True
        if not self._ready.is_set():
            self._ready.set()

    def wait(self, timeout_s: float) -> None:
        """Waits until a record was appended since `read` last returned none."""
        self._ready.wait(timeout_s)

    def read(self, start: Position) -> tuple[list[bytes], Position]:
        """Returns some records from `start` on, and the position after them; no records when there are no newer ones.

        After damage, the rest of the segment is skipped, logged and counted.
        """
        self._ready.clear()
        while True:
            with self._lock:
                current = self._current
                size = self._sizes.get(start.segment, 0)
            data = self._load(start, size)
            payloads, length = frames.decode(data)
            if payloads:
                return payloads, Position(start.segment, start.offset + length)
            if start.segment >= current:
                return [], start
            if start.offset < size:
                delivery_metrics.WAL_DAMAGED.inc()
                logger.error(
                    "write-ahead log segment %d is damaged at byte %d of %d: the rest of it is lost",
                    start.segment, start.offset, size,
                )  # fmt: skip
            with self._lock:
                start = Position(min(number for number in self._sizes if number > start.segment), 0)

    def position(self) -> Position:
        """Returns the position that was last passed to `release`; before that, the beginning of the log."""
        path = self._folder / "position"
        if path.exists():
            return Position(**json.loads(path.read_text()))
        return Position(min(self._sizes, default=0), 0)

    def release(self, position: Position) -> None:
        """Stores durably that everything before `position` was sent, and deletes segments before it."""
        write_whole(self._folder / "position", json.dumps(position._asdict()))
        with self._lock:
            gone = [number for number in self._sizes if number < min(position.segment, self._current)]
            for number in gone:
                self._total -= self._sizes.pop(number)
            self._sent = position
        for number in gone:
            with crash.step("segment removal"):
                self._path(number).unlink(missing_ok=True)

    def unsent_bytes(self) -> int:
        """Returns the number of bytes that were appended and not released yet."""
        with self._lock:
            return self._total - (self._sent.offset if self._sent.segment in self._sizes else 0)

    def close(self) -> None:
        """Fsyncs and closes the log. Its records stay for the next start."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._syncer.join(_LAST_SYNC_S)
        self._sync()
        os.close(self._descriptor)
        self._process_lock.close()

    def _write(self, frame: bytes, size: int) -> None:
        """Writes the complete frame or nothing."""
        try:
            written = os.write(self._descriptor, frame)
            if written == len(frame):
                return
            reason = "the disk is full"
        except OSError as error:
            if error.errno not in _NO_SPACE:
                raise
            reason = error.strerror or "the disk is full"
        os.ftruncate(self._descriptor, size)
        delivery_metrics.WAL_REFUSED.inc()
        raise WalFull(f"write-ahead log {self._folder}: {reason}")

    def _roll(self) -> None:
        self._rolled.append(self._descriptor)
        self._begin_segment()

    def _begin_segment(self) -> None:
        self._current += 1
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND
        with crash.step("new segment"):
            self._descriptor = os.open(self._path(self._current), flags, 0o600)
        self._sizes[self._current] = 0
        self._total = sum(self._sizes.values())

    def _repair_last(self) -> None:
        """Removes an incomplete last frame: the process died while it was writing it."""
        if not self._sizes:
            return
        last = max(self._sizes)
        at = 0
        while at < self._sizes[last]:
            _, length = frames.decode(self._load(Position(last, at), self._sizes[last]))
            if length == 0:
                logger.warning(
                    "write-ahead log: removed %d bytes of an incomplete record", self._sizes[last] - at
                )
                with crash.step("repair"):
                    os.truncate(self._path(last), at)
                self._sizes[last] = at
            at += length

    def _load(self, start: Position, size: int) -> bytes:
        """Returns up to a chunk of a segment's first `size` bytes, from `start` on."""
        if start.offset >= size:
            return b""
        with self._path(start.segment).open("rb") as file:
            file.seek(start.offset)
            return file.read(min(_CHUNK_BYTES, size - start.offset))

    def _sync_often(self) -> None:
        while not self._closing.wait(self._fsync_every_s):
            if self._dirty:
                try:
                    self._sync()
                except OSError:
                    logger.exception(
                        "fsync of the write-ahead log failed: its last records may not survive the machine"
                    )

    def _sync(self) -> None:
        """Fsyncs appended records. Does not hold the lock, so that `append` never waits for the disk."""
        with self._lock:
            self._dirty = False
            rolled, self._rolled = self._rolled, []
            current = self._descriptor
        for descriptor in rolled:
            os.fdatasync(descriptor)
            os.close(descriptor)
        os.fdatasync(current)
        if rolled:
            sync_folder(self._folder)

    def _path(self, segment: int) -> Path:
        return self._folder / f"{segment:016d}.wal"


def records_in(folder: Path) -> Iterator[bytes]:
    """Yields the records of a log's segments, oldest first, while another process or thread may append to it.

    Records that were sent are among them until their segment is deleted.
    """
    for path in sorted(folder.glob("*.wal")):
        try:
            payloads, _ = frames.decode(path.read_bytes())
        except FileNotFoundError:
            continue  # it was sent and deleted meanwhile
        yield from payloads
