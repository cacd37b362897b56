"""A training spec from options and from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from openledger.trainer.v1 import trainer_pb2 as pb
from typer.testing import CliRunner

from openledger_cli.__main__ import app
from openledger_cli.commands import training
from openledger_cli.training_spec import merged, message
from openledger_client.services import TRAINER
from openledger_client.training_parameters import GUIDE

EVERYTHING = """\
method: rslora
learning_rate: 5e-4
batch_size: 8
gradient_accumulation: 2
lora_rank: 8
lora_alpha: 16
lora_dropout: 0.05
target_modules: [q_proj, v_proj]
schedule: linear
epochs: 2
warmup_ratio: 0
weight_decay: 1e-2
max_grad_norm: 0
max_tokens: 128
precision: bf16
seed: 7
workers: 1
rehearsal:
  kind: self_generated
  sequences: 64
  tokens_each: 32
  sequences_per_step: 4
  kl_weight: 1.5
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(EVERYTHING)
    return path


def test_a_file_sets_every_value_but_the_one_that_another_excludes(file: Path) -> None:
    values = merged(file, {})
    assert set(values) == set(GUIDE) - {"steps"}
    spec = message(values)
    assert (spec.learning_rate, spec.weight_decay, spec.epochs) == (5e-4, 1e-2, 2.0)
    assert (spec.warmup_ratio, spec.HasField("warmup_ratio")) == (0.0, True)
    assert (spec.method, spec.schedule) == (pb.TUNING_METHOD_RSLORA, pb.LEARNING_RATE_SCHEDULE_LINEAR)
    assert (spec.precision, spec.rehearsal.kind) == (pb.PRECISION_BF16, pb.REHEARSAL_KIND_SELF_GENERATED)
    assert list(spec.target_modules) == ["q_proj", "v_proj"]
    assert spec.rehearsal.kl_weight == 1.5


def test_options_override_the_file(file: Path) -> None:
    values = merged(file, {"seed": 0, "steps": 40, "rehearsal.kl_weight": None, "target_modules": "up_proj"})
    assert (values["seed"], values["target_modules"], values["rehearsal.kl_weight"]) == (0, ("up_proj",), 1.5)
    assert values["steps"] == 40
    assert "epochs" not in values
    without = merged(file, {"rehearsal.kind": "none"})
    assert {path for path in without if path.startswith("rehearsal.")} == {"rehearsal.kind"}


def test_what_is_not_given_is_not_set() -> None:
    assert message(merged(None, dict.fromkeys(GUIDE))) == pb.TrainingSpec()


@pytest.mark.parametrize("written", ["self-generated", "self_generated"])
def test_rehearsal_is_accepted_as_the_platform_writes_it(written: str) -> None:
    spec = message(merged(None, {"rehearsal.kind": written}))
    assert spec.rehearsal.kind == pb.REHEARSAL_KIND_SELF_GENERATED
    assert message(merged(None, {"rehearsal.kind": "suggested"})) == pb.TrainingSpec()


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ("learnin_rate: 1", "learnin_rate is no value of a training spec; the nearest is learning_rate"),
        (
            "rehearsal: {kl_wait: 1}",
            "rehearsal.kl_wait is no value of a training spec; the nearest is rehearsal.kl",
        ),
        ("steps: many", "'many' is no integer"),
        ("steps: 1.5", "1.5 is no integer"),
        ("steps: true", "True is no integer"),
        ("rehearsal: none", "rehearsal is no value of a training spec; the nearest is rehearsal."),
        ("- steps", "holds no names with values"),
        ("steps: [", "is not YAML"),
        ("learning_rate: 1", f"1 {GUIDE['learning_rate'].too_large}"),
        ("rehearsal: {tokens_each: 1}", f"1 {GUIDE['rehearsal.tokens_each'].too_small}"),
        ("schedule: step", "'step' must be one of linear, cosine, constant"),
        ("target_modules: 3", "must be names of the base's linear layers"),
    ],
)
def test_a_wrong_file_is_answered_with_path_and_sentence(tmp_path: Path, content: str, shown: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(content)
    with pytest.raises(typer.BadParameter) as caught:
        merged(path, {})
    assert shown in str(caught.value)


def test_a_file_that_cannot_be_read_and_a_number_too_large_for_its_field_are_named(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="cannot be read"):
        merged(tmp_path / "no-such-file", {})
    with pytest.raises(typer.BadParameter):
        message({"seed": 1 << 64})


@pytest.mark.parametrize("command", ["assess", "run m --no-follow"])
def test_both_commands_send_the_spec_of_their_options(
    command: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []

    class Client:
        """Answers with empty messages and keeps the requests."""

        trainer: Any

        def AssessTrainingSpec(self, request: Any) -> Any:
            sent.append(request)
            return pb.TrainingAssessment()

        def CreateTrainingRun(self, request: Any) -> Any:
            sent.append(request)
            return pb.TrainingRun()

    client = Client()
    client.trainer = client

    class Session:
        """A session without a server."""

        as_json = False

    session = Session()
    vars(session)["client"] = client
    monkeypatch.setattr(training, "session", lambda: session)
    words = f"{command} --base baseModels/b --snapshot datanets/d/snapshots/1 --spec {file} --rehearsal none --seed 0"
    result = CliRunner().invoke(
        app,
        ["--state-dir", str(tmp_path), "train", *words.split()],
        env={TRAINER.variable("address"): "127.0.0.1:1"},
    )
    assert result.exception is None, result.output
    (request,) = sent
    assert (request.spec.seed, request.spec.HasField("seed")) == (0, True)
    assert request.spec.rehearsal.kind == pb.REHEARSAL_KIND_NONE
    assert request.spec.lora_rank == 8
