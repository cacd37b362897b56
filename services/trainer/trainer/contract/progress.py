"""Progress of a job as JSON lines in its folder: written by the job, followed by the service.

A line is complete when it ends with a newline; a job that dies leaves at most half a line, which readers
skip. Lines only ever get appended, so a follower's place in the file stays valid when a job resumes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from servicekit import crash, private

FILE_NAME = "progress.jsonl"


@dataclass(frozen=True, kw_only=True)
class ProgressLine:
    """One report of a job."""

    stage: str
    """What is being done, e.g. "sampling rehearsal", "training", "scoring hellaswag"."""
    done: int
    total: int
    """0 when unknown."""
    unit: str
    eta_s: float
    """Seconds left in this stage; 0 when unknown."""
    time_s: float
    """Seconds since the epoch."""
    metrics: Mapping[str, float]
    """Of a training step: step, loss, kl, learning_rate, gradient_norm, tokens_per_s. Else may be empty."""


class ProgressWriter:
    """Appends lines. Works with one writer at a time; each line is one write, flushed."""

    def __init__(self, folder: Path) -> None:
        private.folder(folder)
        path = folder / FILE_NAME
        torn = path.is_file() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
        self._file = private.file(path).open("ab")
        if torn:  # a predecessor died within a line
            self._file.write(b"\n")
        self._stage = ""
        self._start = (0.0, 0)

    def report(
        self, stage: str, done: int, total: int, unit: str, metrics: Mapping[str, float] | None = None
    ) -> ProgressLine:
        """Appends a line; the ETA extrapolates this stage's speed since its first report here."""
        now = time.time()
        if stage != self._stage:
            self._stage, self._start = stage, (now, done)
        begun, done_then = self._start
        eta_s = (now - begun) / (done - done_then) * (total - done) if done > done_then and total else 0.0
        line = ProgressLine(
            stage=stage,
            done=done,
            total=total,
            unit=unit,
            eta_s=round(eta_s, 1),
            time_s=round(now, 3),
            metrics=dict(metrics or {}),
        )
        with crash.step("progress"):
            self._file.write(json.dumps(asdict(line)).encode() + b"\n")
            self._file.flush()
        return line

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_progress(folder: Path, offset: int = 0) -> tuple[list[ProgressLine], int]:
    """Complete lines from byte `offset` on, and the offset for the next call. A missing file has no lines."""
    try:
        with (folder / FILE_NAME).open("rb") as file:
            file.seek(offset, os.SEEK_SET)
            data = file.read()
    except FileNotFoundError:
        return [], offset
    complete, newline, _ = data.rpartition(b"\n")
    if not newline:
        return [], offset
    lines = [line for raw in complete.split(b"\n") if (line := _parse(raw)) is not None]
    return lines, offset + len(complete) + 1


def _parse(raw: bytes) -> ProgressLine | None:
    try:
        content: Any = json.loads(raw)
        return ProgressLine(**content)
    except (ValueError, TypeError):
        return None
