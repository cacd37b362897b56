"""`openledger base-model import` says what is wrong, and ends as the import ended."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from openledger_cli.__main__ import app
from servicekit.errors import StartupError


def test_a_refused_folder_ends_with_its_reason(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["base-model", "import", str(tmp_path), "--name", "mine", "--licence", "free as in beer"]
    words.append("--new-platform")
    result = CliRunner().invoke(app, ["--state-dir", str(tmp_path / "state"), *words])
    assert result.exit_code == 1
    assert "not imported: --licence 'free as in beer' is no SPDX licence expression" in capfd.readouterr().err


def test_an_import_begins_no_platform_by_mistake(tmp_path: Path) -> None:
    nope = tmp_path / "nope"
    words = ["base-model", "import", str(tmp_path), "--name", "mine", "--licence", "MIT"]
    result = CliRunner().invoke(app, ["--state-dir", str(nope), *words])
    assert isinstance(result.exception, StartupError)
    assert f"no platform in {nope}: give --state-dir" in str(result.exception)
    assert not nope.exists()
