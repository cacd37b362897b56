"""Sends a file's rows to a Datanet: nothing is lost, nothing is doubled, and an interrupted import can be continued.

    reading thread          Contribute stream           caller's thread
    row -> record ------------> stored ----------------> acknowledged, or rejected by a rule
        -> refusal                                           |
            +---------------- in the file's order -----------+--> rejected rows, tally, progress file

A row is done when it and all rows before it are: acknowledged by the service, which has then stored the result, or refused
here. The progress file says how many rows are done and how long the file of rejected rows then was. To continue, that file is
cut to this length and the rows after that number are sent. Rows that were acknowledged after the last write of the progress file
are sent twice; the service recognises a contributor's own records by the digest of their content (`already_present`): they count
once.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from openledger.datanet.v1 import datanet_pb2 as pb

from openledger_client import uploads
from openledger_client.errors import from_status
from openledger_client.importing.checking import Prepared, prepared
from openledger_client.importing.mapping import FieldMapping
from openledger_client.importing.progress_file import ProgressFile, Tally
from openledger_client.importing.rows import InputError, Refusal, Table

if TYPE_CHECKING:
    from openledger.datanet.v1.datanet_pb2_grpc import DatanetServiceStub

_WAITING_REFUSALS = 10_000
"""Most refusals that wait for the acknowledgement of a row before them: reading pauses there."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is imported, and how it may go."""

    contributor: str
    """`datanets/{datanet}/contributors/{contributor}`."""
    table: Table
    schema: pb.RecordSchema
    mapping: FieldMapping
    rejected: Path | None = None
    """JSON lines {line, row, field, rule, reason}, one for each row that was not imported."""
    progress_file: ProgressFile | None = None
    """Without one, an interrupted import begins again; the service then recognises what it has."""
    write_every_s: float = 1.0
    """Seconds between two writes of the progress file."""


class Importer:
    """One import. Use `run` once."""

    def __init__(
        self,
        plan: Plan,
        *,
        done: Tally | None = None,
        refused: Callable[[Refusal], None] = lambda refusal: None,
        moved: Callable[[Tally], None] = lambda tally: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            plan: what to import.
            done: where an earlier process stopped (`ProgressFile.read`).
            refused: receives each row that is not imported, in the file's order; from one thread at a time.
            moved: receives the tally after each row; from one thread at a time.
            clock: seconds.
        """
        self._plan = plan
        self._tally = done or Tally()
        self._refused = refused
        self._moved = moved
        self._clock = clock
        self._written_at = clock()
        self._waiting: deque[Prepared | Refusal] = deque()
        """Rows that are not done, in the file's order; the first one is a record that the service has not acknowledged."""
        self._changed = threading.Condition()
        self._is_closed = False
        self._rejected_file: IO[bytes] | None = None

    @property
    def tally(self) -> Tally:
        """What is done. Right at any time, also after `run` was interrupted."""
        return self._tally

    def run(self, stub: DatanetServiceStub) -> Tally:
        """Sends all rows that are not done, and returns the tally of the whole file.

        However it ends, the progress file says how far it came. It is removed when no row is done, or all are.

        Raises:
            InputError: the file cannot be read any further, or a file cannot be written.
            OpenLedgerError: the service refuses the stream, or stays unreachable for a minute.
        """
        self._rejected_file = self._open_rejected()
        try:
            self._write_progress()
            for response in uploads.contribute(stub, self._plan.contributor, self._contents()):
                self._acknowledged(response)
        except BaseException:
            self._close(complete=False)
            raise
        self._close(complete=True)
        return self._tally

    def _contents(self) -> Iterator[bytes]:
        """Yields the records to send; read in a thread of the stream."""
        plan = self._plan
        for row in prepared(plan.table, plan.schema, plan.mapping, skip=self._tally.rows):
            with self._changed:
                self._changed.wait_for(  # waits: for acknowledgements; `_close` wakes it
                    lambda: self._is_closed or len(self._waiting) < _WAITING_REFUSALS
                )
                if self._is_closed:
                    return
                self._waiting.append(row)
                self._settle_refusals()
            if isinstance(row, Prepared):
                yield row.content

    def _acknowledged(self, response: pb.ContributeResponse) -> None:
        with self._changed:
            row = self._waiting.popleft()
            assert isinstance(row, Prepared)
            refusal = _refusal(row, response)
            if refusal is None:
                self._done(row, _counted(self._tally, response))
            else:
                self._reject(refusal)
            self._settle_refusals()
            self._changed.notify_all()
        if self._clock() - self._written_at >= self._plan.write_every_s:
            self._write_progress()

    def _settle_refusals(self) -> None:
        """Rejects the refused rows before which nothing waits."""
        while self._waiting and isinstance(row := self._waiting[0], Refusal):
            self._waiting.popleft()
            self._reject(row)

    def _reject(self, refusal: Refusal) -> None:
        line = as_json(refusal)
        if self._rejected_file is not None:
            with _writing(self._plan.rejected):
                self._rejected_file.write(line)
        self._refused(refusal)
        refused = {**self._tally.refused, refusal.rule: self._tally.refused.get(refusal.rule, 0) + 1}
        size = self._tally.rejected_bytes + (len(line) if self._rejected_file is not None else 0)
        self._done(refusal, replace(self._tally, refused=refused, rejected_bytes=size))

    def _done(self, row: Prepared | Refusal, tally: Tally) -> None:
        self._tally = replace(
            tally, rows=row.number, end=row.end
        )  # in one step: an interruption falls before or after it
        self._moved(self._tally)

    def _open_rejected(self) -> IO[bytes] | None:
        path, size = self._plan.rejected, self._tally.rejected_bytes
        if path is None:
            return None
        with _writing(path):
            file = path.open("r+b" if size else "wb")
            if file.seek(0, 2) >= size:
                file.truncate(size)
                file.seek(size)
                return file
            file.close()
        raise _unusable(path, f"is shorter than the {size:,} bytes that the interrupted import had written")

    def _write_progress(self) -> None:
        """Writes the progress file, after the rejected rows that it counts."""
        with self._changed:
            tally = self._tally
            if self._rejected_file is not None:
                with _writing(self._plan.rejected):
                    self._rejected_file.flush()
                    os.fsync(self._rejected_file.fileno())
        if self._plan.progress_file is not None:
            self._plan.progress_file.write(tally)
        self._written_at = self._clock()

    def _close(self, *, complete: bool) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        try:
            self._write_progress()
            if (complete or not self._tally.rows) and self._plan.progress_file is not None:
                self._plan.progress_file.remove()
        finally:
            if self._rejected_file is not None:
                with suppress(OSError):  # of a full disk, which `_write_progress` has named
                    self._rejected_file.close()


def as_json(refusal: Refusal) -> bytes:
    """Returns a refusal as a line of the file of rejected rows."""
    found = {
        "line": refusal.line,
        "row": refusal.number,
        "field": refusal.field,
        "rule": refusal.rule,
        "reason": refusal.reason,
    }
    return json.dumps(found).encode() + b"\n"


def _counted(tally: Tally, response: pb.ContributeResponse) -> Tally:
    if response.already_present:
        return replace(tally, present=tally.present + 1)
    if response.state == pb.RECORD_STATE_PENDING:
        return replace(tally, pending=tally.pending + 1)
    return replace(tally, accepted=tally.accepted + 1)


def _refusal(row: Prepared, response: pb.ContributeResponse) -> Refusal | None:
    """Returns why the service does not take a record; None if it does."""
    if not response.HasField("status"):
        if response.state not in (pb.RECORD_STATE_REJECTED, pb.RECORD_STATE_WITHDRAWN):
            return None
        field, reason = "", "the record was withdrawn, or a person rejected it"
    else:
        violation = next(iter(from_status(response.status).violations), None)
        field = violation.field if violation else ""
        reason = violation.message if violation else response.status.message
    state = pb.RecordState.Name(response.state).removeprefix("RECORD_STATE_").lower()
    return Refusal(
        number=row.number, line=row.line, end=row.end, field=field, rule=response.rule or state, reason=reason
    )


@contextmanager
def _writing(path: Path | None) -> Iterator[None]:
    """Names the file of rejected rows where it cannot be written."""
    try:
        yield
    except OSError as error:
        raise _unusable(path, f"cannot be written: {error.strerror}") from None


def _unusable(path: Path | None, reason: str) -> InputError:
    return InputError.of("rejected", "usable", f"{path}: {reason}")
