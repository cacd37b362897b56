"""The import of base models: as a job, and as a command."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from finetune import import_base_model
from servicekit.objects import ObjectStore
from trainer.contract import base_models
from trainer.contract.base_models import ImportJob
from trainer.contract.files import IMPORT_BASE_MODEL, JOB_FILE, command, write_json


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["import_base_model", *arguments])
    monkeypatch.setattr(
        import_base_model, "end_with_parent", lambda: None
    )  # would end the test run with its shell
    import_base_model.main()


def test_a_job_leaves_its_model_for_the_control_plane(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "import-tiny"
    job = ImportJob(id="tiny", object_store=str(tmp_path / "objects"), cache_dir=str(tmp_path / "cache"))
    write_json(folder / JOB_FILE, job)
    call(monkeypatch, *command(sys.executable, IMPORT_BASE_MODEL, folder)[3:])
    model = base_models.result(folder)
    assert model is not None
    assert (model.id, model.parameter_count) == ("tiny", 164_160)
    assert ObjectStore(job.object_store).exists(model.digest)
    call(monkeypatch, "--run", str(folder))
    assert base_models.result(folder) == model


def test_a_command_registers_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, "tiny", "--state-dir", str(tmp_path))
    model = base_models.read(base_models.registered_path(tmp_path, "tiny"))
    assert model.digest in capsys.readouterr().out
    assert ObjectStore(str(tmp_path / "objects")).exists(model.digest)


@pytest.mark.parametrize(
    ("arguments", "message"), [((), "name a base model"), (("gpt-9",), "'gpt-9' cannot be imported")]
)
def test_a_wrong_command_says_what_would_be_right(
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        call(monkeypatch, *arguments)
    error = capsys.readouterr().err
    assert message in error
    assert "smollm2-135m-instruct, tiny" in error
