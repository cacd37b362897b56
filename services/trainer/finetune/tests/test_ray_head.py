"""The local Ray head: its command, its token, and a start that fails."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from finetune import ray_head as module
from finetune.ray_head import ray_head
from trainer.contract.ray_token import bearer_token, client_environment, token_file


def test_the_ray_head_needs_a_token_that_only_its_owner_reads(tmp_path: Path) -> None:
    head, again = ray_head(tmp_path, 8265), ray_head(tmp_path, 8265)
    path = token_file(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert head.environment["RAY_AUTH_MODE"] == "token"
    assert client_environment(tmp_path)["RAY_AUTH_TOKEN_PATH"] == str(path)
    assert again.environment == head.environment
    assert "--dashboard-host=127.0.0.1" in head.argv
    assert f"--temp-dir={head.session_folder}" in head.argv


def test_the_folder_of_ray_is_in_a_private_one_and_its_sockets_fit(tmp_path: Path) -> None:
    deep = tmp_path / ("deep" * 20)
    short = Path(tempfile.mkdtemp(dir="/tmp", prefix="s"))
    try:
        for state_dir in (deep, short):
            found = ray_head(state_dir).session_folder
            assert found == ray_head(state_dir).session_folder  # a head that starts again finds its logs
            assert found.parent.stat().st_mode & 0o777 == 0o700
            socket = found / "session_2026-01-01_00-00-00_000000_4194304" / "sockets" / "plasma_store"
            assert len(bytes(socket)) <= 107
        assert ray_head(short).session_folder.is_relative_to(short)
        outside = ray_head(deep).session_folder
        assert hashlib.sha256(str(deep).encode()).hexdigest()[:12] not in str(outside)
        outside.parent.chmod(0o777)  # as another user could have made it, after a cleaner removed ours
        assert ray_head(deep).session_folder != outside
    finally:
        shutil.rmtree(short)


def test_clients_find_the_token_as_ray_does(tmp_path: Path) -> None:
    environment = client_environment(tmp_path)
    assert bearer_token(environment) == token_file(tmp_path).read_text()
    assert bearer_token({**environment, "RAY_AUTH_TOKEN": "other"}) == "other"
    assert bearer_token({}) is None


def test_a_start_that_times_out_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def start() -> None:
        raise RuntimeError("Timed out waiting for file gcs_server_port\nmore lines")

    monkeypatch.setattr("ray.scripts.scripts.main", start)
    monkeypatch.setattr(sys, "argv", ["ray_head", "--state-dir", str(tmp_path)])
    for name in ray_head(tmp_path).environment:
        monkeypatch.setenv(name, "")  # restored after the test
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert "Timed out waiting for file gcs_server_port" in str(ended.value)
    assert "\n" not in str(ended.value)
