"""`pytest --cpu` shows what a test file costs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

BUSY = "import time\nwhile time.process_time() < 0.3: pass\n"
TESTS = f"""
import subprocess, sys

def test_busy_child():
    subprocess.run([sys.executable, "-c", {BUSY!r}], check=True)
"""


def test_the_processes_that_a_test_ended_count_for_its_file(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_with_a_child.py").write_text(TESTS)
    (tmp_path / "test_idle.py").write_text("def test_nothing():\n    pass\n")
    command = [sys.executable, "-m", "pytest", "-p", "openledger_testing.cpu_by_file", "--cpu"]
    for workers in ([], ["-n", "1"]):
        said = subprocess.run([*command, *workers], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert said.returncode == 0, said.stdout + said.stderr
        used = {name: float(s) for s, name in re.findall(r"^ *([\d.]+)  (test_\w+\.py)$", said.stdout, re.M)}
        assert used["test_with_a_child.py"] >= 0.2
        assert used["test_idle.py"] < used["test_with_a_child.py"]
