"""A job does not outlive the one that started it, and never shares its folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.watchdog import FolderInUse, exclusive_use
from servicekit.testing.waiting import eventually

JOB = """
import sys, threading
from pathlib import Path
from finetune.watchdog import end_with_parent, exclusive_use
end_with_parent()
with exclusive_use(Path(sys.argv[1])):
    (Path(sys.argv[1]) / sys.argv[2]).write_text(str(__import__("os").getpid()))
    threading.Event().wait(60)
"""


def test_an_orphaned_job_ends_and_leaves_its_folder_to_the_next(tmp_path: Path) -> None:
    def start(name: str) -> subprocess.Popen[bytes]:
        """A shell that starts the job and waits for it, as Ray does."""
        command = f"'{sys.executable}' -c \"$JOB\" '{tmp_path}' {name}; true"
        return subprocess.Popen(["sh", "-c", command], env={**os.environ, "JOB": JOB})

    first = start("first")
    eventually(lambda: (tmp_path / "first").exists() and (tmp_path / "first").read_text() != "")
    second = start("second")
    assert not (tmp_path / "second").exists()
    first.send_signal(signal.SIGKILL)
    first.wait()
    eventually(lambda: (tmp_path / "second").exists() and (tmp_path / "second").read_text() != "")
    second.kill()
    second.wait()
    with exclusive_use(tmp_path):
        pass  # the second one has gone too


def test_a_folder_that_another_process_keeps_is_refused_at_the_deadline(tmp_path: Path) -> None:
    with (
        exclusive_use(tmp_path),
        pytest.raises(FolderInUse, match="still uses"),
        exclusive_use(tmp_path, patience_s=0.1),
    ):
        raise AssertionError("two have it")
