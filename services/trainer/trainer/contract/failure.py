"""Why a job failed, in one line for people; the traceback stays in Ray's job log."""

from __future__ import annotations

from pathlib import Path

from servicekit import crash
from servicekit.files import remove, write_whole

crash.primitive(__name__)
FILE_NAME = "error.txt"
_LONGEST = 2000


def describe(error: BaseException) -> str:
    """The innermost cause of an error that Ray may have wrapped several times."""
    failures = getattr(error, "worker_failures", None)  # Ray Train: by rank
    cause = next(iter(failures.values())) if failures else error
    while (inner := getattr(cause, "cause", None) or cause.__cause__) is not None and inner is not cause:
        cause = inner
    return f"{type(cause).__name__}: {cause}"[:_LONGEST]


def write_failure(folder: Path, text: str) -> None:
    write_whole(folder / FILE_NAME, text)


def read_failure(folder: Path) -> str | None:
    """None when the job left no reason, for example because it was killed."""
    path = folder / FILE_NAME
    return path.read_text() if path.is_file() else None


def clear_failure(folder: Path) -> None:
    """Forgets what an earlier attempt left."""
    remove(folder / FILE_NAME)
