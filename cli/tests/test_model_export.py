"""An exported model loads in plain transformers and PEFT, and gives the same logits; what is not whole never appears."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from google.protobuf.timestamp_pb2 import Timestamp
from openledger.common.v1.estimate_pb2 import Estimate
from openledger.common.v1.object_pb2 import ObjectChunk
from openledger.datanet.v1 import datanet_pb2
from openledger.trainer.v1 import trainer_pb2 as pb
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from modelkit import base_model
from modelkit.adapter import manifest as adapter_manifest
from modelkit.training_manifest import ManifestRehearsal, ManifestSnapshot, TrainingManifest
from modelkit.weights import tiny
from modelkit.weights.adapter import publish
from openledger_cli.model_export import merge
from openledger_cli.model_export.run import Form, export
from openledger_cli.progress import Progress
from openledger_client.errors import DataLoss, FailedPrecondition, InvalidArgument
from servicekit.objects import ObjectStore

VERSION, REPORT = "models/m/versions/1", "sha256:" + "1" * 64
PROMPT = "Report: The actor sent a mail.\nTactic:"
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Stream:
    """A stream of a stub: chunks, and `cancel`."""

    def __init__(self, chunks: list[ObjectChunk]) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[ObjectChunk]:
        return iter(self._chunks)

    def cancel(self) -> None:
        pass


class Platform:
    """A trainer with one version, and a Datanet: what a client would reach."""

    def __init__(self, objects: ObjectStore, version: pb.ModelVersion, report: pb.EvaluationReport) -> None:
        self.objects, self.version, self.report = objects, version, report
        self.trainer = SimpleNamespace(
            DownloadModelVersion=self.download, GetEvaluationReport=lambda request: self.report
        )
        self.datanet = SimpleNamespace(
            GetDatanet=lambda request: datanet_pb2.Datanet(name=request.name, licence="CC-BY-4.0")
        )
        self.damaged = ""
        """A file whose bytes arrive changed."""

    def download(self, request: pb.DownloadModelVersionRequest) -> Stream:
        digest = {
            pb.MODEL_VERSION_PART_BASE_MODEL: self.version.base_digest,
            pb.MODEL_VERSION_PART_ADAPTER: self.version.adapter_digest,
            pb.MODEL_VERSION_PART_TRAINING_MANIFEST: self.version.training_manifest_digest,
        }[request.part]
        if request.file:
            base = request.part == pb.MODEL_VERSION_PART_BASE_MODEL
            files = base_model.read_manifest(digest, self.objects).files if base else None
            digest = (files or adapter_manifest(digest, self.objects)[1])[request.file]
        data = self.objects.get_bytes(digest)
        if self.damaged and request.file == self.damaged:
            data = data[:-1] + bytes([data[-1] ^ 1])
        half = len(data) // 2
        return Stream(
            [
                ObjectChunk(digest=digest, size=len(data), offset=0, data=data[:half]),
                ObjectChunk(digest=digest, size=len(data), offset=half, data=data[half:]),
            ]
        )


def write_adapter(base: Path, folder: Path) -> Path:
    """A LoRA adapter that changes what the model answers."""
    model = AutoModelForCausalLM.from_pretrained(str(base))
    tuned = get_peft_model(
        model, LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=TARGETS)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        for name, parameter in tuned.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.05)
    tuned.save_pretrained(str(folder))
    return folder


def manifest_of(base: str, adapter: str) -> TrainingManifest:
    snapshot = ManifestSnapshot(
        name="datanets/d/snapshots/3", root="sha256:" + "2" * 64, records_digest="sha256:" + "3" * 64,
        manifest_digest="sha256:" + "4" * 64, weight=1.0, prompt="Report: {text}\nTactic:", completion=" {tactic}",
        template_digest="sha256:" + "5" * 64, records={"sha256:" + "6" * 64: 2, "sha256:" + "7" * 64: 1},
    )  # fmt: skip
    return TrainingManifest(
        base_digest=base, adapter_digest=adapter, snapshots=(snapshot,),
        rehearsal=ManifestRehearsal(kind="none", digest="", sequences=0, tokens=0),
        spec={}, origins={}, steps=40, truncated_records=0, compute={}, packages={},
    )  # fmt: skip


def report_of(base: str, adapter: str) -> pb.EvaluationReport:
    def estimate(value: float) -> Estimate:
        return Estimate(value=value, lower=value - 0.1, upper=value + 0.1, sample_size=150)

    suite = pb.EvaluationReport.SuiteResult(
        suite="domain", base=estimate(0.1), tuned=estimate(0.6), difference=estimate(0.5), verdict=pb.VERDICT_PASSED
    )  # fmt: skip
    return pb.EvaluationReport(
        digest=REPORT, base_digest=base, adapter_digest=adapter, suites=[suite], verdict=pb.VERDICT_INCOMPLETE,
        reasons=["hellaswag was not measured"], missing_suites=["hellaswag"], compute="cpu/float32",
        policy_digest="sha256:" + "8" * 64,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[ObjectStore, pb.ModelVersion, pb.EvaluationReport]:
    folder = tmp_path_factory.mktemp("platform")
    objects = ObjectStore(folder / "objects")
    base = tiny.create_tiny(objects)
    unpacked = base_model.materialise(base, objects, folder / "cache")
    adapter = publish(write_adapter(unpacked, folder / "peft"), base, objects)
    version = pb.ModelVersion(
        name=VERSION, digest="sha256:" + "9" * 64, base_model="baseModels/tiny", base_digest=base,
        adapter_digest=adapter, training_run="trainingRuns/01J00000000000000000000000", owner="alice",
        snapshots=[pb.ModelVersion.TrainedSnapshot(snapshot="datanets/d/snapshots/3", root="sha256:" + "2" * 64)],
        training_manifest_digest=objects.put_bytes(manifest_of(base, adapter).to_bytes()),
        values=[pb.EffectiveValue(parameter="learning_rate", value="0.0005", origin="suggested")],
        intent=pb.Intent(purpose="Tactics | of reports"), report_digest=REPORT, state=pb.MODEL_VERSION_STATE_EVALUATED,
        history=[pb.ModelVersion.StateChange(state=pb.MODEL_VERSION_STATE_TRAINED, change_time=Timestamp(seconds=1),
                                             principal="alice", reason="trained")],
    )  # fmt: skip
    return objects, version, report_of(base, adapter)


@pytest.fixture
def platform(made: tuple[ObjectStore, pb.ModelVersion, pb.EvaluationReport]) -> Platform:
    objects, version, report = made
    own = pb.ModelVersion()
    own.CopyFrom(version)
    return Platform(objects, own, report)


def exported(platform: Any, to: Path, form: Form, *, with_base: bool = False, float32: bool = False) -> Path:
    silent = Progress("", lambda line: None)
    export(platform, platform.version, to, form=form, with_base=with_base, float32=float32, progress=silent)
    return to


def logits(model: Any, tokenizer: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(
            **tokenizer(PROMPT, return_tensors="pt", return_token_type_ids=False)
        ).logits
    return found


def test_both_forms_load_in_plain_transformers_and_peft_and_answer_alike(
    platform: Platform, tmp_path: Path
) -> None:
    peft = exported(platform, tmp_path / "peft", Form.PEFT, with_base=True)
    merged = exported(platform, tmp_path / "merged", Form.MERGED)
    tokenizer = AutoTokenizer.from_pretrained(str(merged))
    base = AutoModelForCausalLM.from_pretrained(str(peft / "base")).eval()
    untuned = logits(base, tokenizer)
    expected = logits(PeftModel.from_pretrained(base, str(peft)).eval(), tokenizer)
    found = logits(AutoModelForCausalLM.from_pretrained(str(merged)).eval(), tokenizer)
    assert (expected - untuned).abs().max() > 0.1, "the adapter of this test changes nothing"
    assert torch.allclose(found, expected, atol=1e-4)
    assert tokenizer.chat_template, "the merged folder has no chat template"
    assert sorted(path.name for path in merged.iterdir()) == [
        "README.md", "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json", "training_manifest.json",
    ]  # fmt: skip


def test_the_card_says_what_the_records_say_and_what_they_lack(platform: Platform, tmp_path: Path) -> None:
    card = (exported(platform, tmp_path / "peft", Form.PEFT) / "README.md").read_text()
    for fact in (
        platform.version.base_digest, platform.version.adapter_digest, "Tactics \\| of reports", "set by", "suggested",
        "| domain | 0.1 [0, 0.2] n=150 | 0.6 [0.5, 0.7] n=150 |", "| hellaswag | not measured |", "**incomplete**",
        "2 distinct records were seen", "| base | Apache-2.0 |", "| data of `datanets/d` | CC-BY-4.0 |",
        "| adapter | not stated: the platform records none |", '` "Report: {text}\\nTactic:" `',
    ):  # fmt: skip
        assert fact in card
    platform.version.report_digest = ""
    again = (exported(platform, tmp_path / "unmeasured", Form.PEFT) / "README.md").read_text()
    assert "Not measured: the version has no evaluation report" in again
    assert again == (exported(platform, tmp_path / "same", Form.PEFT) / "README.md").read_text()


def test_a_rounded_merge_states_its_difference_and_float32_avoids_it(
    platform: Platform, tmp_path: Path
) -> None:
    base = platform.objects
    half = tmp_path / "half"
    half.mkdir()
    unpacked = base_model.materialise(platform.version.base_digest, base, tmp_path / "cache")
    for path in unpacked.iterdir():
        (half / path.name).write_bytes(path.read_bytes())
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(unpacked / "model.safetensors").items()}
    save_file(tensors, half / "model.safetensors", metadata={"format": "pt"})
    digest = base_model.publish(half, "half", "Apache-2.0", "a test", base)
    _, files = adapter_manifest(platform.version.adapter_digest, base)
    peft = tmp_path / "adapter"
    peft.mkdir()
    for name, file in files.items():
        (peft / name).write_bytes(base.get_bytes(file))
    platform.version.base_digest, platform.version.adapter_digest = digest, publish(peft, digest, base)
    rounded = (exported(platform, tmp_path / "rounded", Form.MERGED) / "README.md").read_text()
    exact = exported(platform, tmp_path / "exact", Form.MERGED, float32=True)
    assert "stored as bfloat16" in rounded
    assert "tolerance 0.1" in rounded
    assert "stored as float32" in (exact / "README.md").read_text()
    assert json.loads((exact / "config.json").read_text())["dtype"] == "float32"
    assert AutoModelForCausalLM.from_pretrained(str(exact)).dtype == torch.float32


def test_a_merged_model_beyond_the_tolerance_is_refused_and_leaves_nothing(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(merge.TOLERANCES, "float32", -1.0)
    with pytest.raises(
        FailedPrecondition,
        match=r"merging changes .* of the adapter's effect, more than -1: nothing was written",
    ):
        exported(platform, tmp_path / "merged", Form.MERGED)
    assert list(tmp_path.iterdir()) == []


def test_a_difference_that_is_no_number_is_beyond_every_tolerance() -> None:
    parity = merge.Parity(
        number_type="float32",
        tolerance=1e9,
        positions=1,
        changed=float("nan"),
        largest_difference=0.0,
        mean_kl=0.0,
        same_first_token=1,
    )
    with pytest.raises(FailedPrecondition):
        merge.check(parity)


@pytest.mark.parametrize("damaged", ["adapter_model.safetensors", "model.safetensors"])
def test_bytes_without_their_digest_never_become_a_folder(
    platform: Platform, tmp_path: Path, damaged: str
) -> None:
    platform.damaged = damaged
    with pytest.raises(DataLoss):
        exported(platform, tmp_path / "to", Form.PEFT, with_base=True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_content_is_refused_before_anything_is_downloaded(
    platform: Platform, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    platform.trainer.DownloadModelVersion = None  # nobody may call it
    with pytest.raises(InvalidArgument, match="is not empty"):
        exported(platform, tmp_path, Form.PEFT)
    with pytest.raises(InvalidArgument, match="is a file"):
        exported(platform, tmp_path / "notes.txt", Form.PEFT)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_what_a_killed_export_left_is_removed_by_the_next(platform: Platform, tmp_path: Path) -> None:
    left = tmp_path / ".to.exporting"
    (left / "parts").mkdir(parents=True)
    (left / "parts" / "model.safetensors").write_bytes(b"half")
    (tmp_path / "to").mkdir()  # an empty folder is as good as none
    exported(platform, tmp_path / "to", Form.PEFT)
    assert [path.name for path in tmp_path.iterdir()] == ["to"]
    assert not (tmp_path / "to" / "parts").exists()


def test_a_name_that_is_a_path_is_refused(platform: Platform, tmp_path: Path) -> None:
    content = json.loads(platform.objects.get_bytes(platform.version.adapter_digest))
    content["files"] = {"../outside": content["files"]["adapter_config.json"]}
    platform.version.adapter_digest = platform.objects.put_bytes(json.dumps(content).encode())
    with pytest.raises(DataLoss, match="is not a manifest with plain file names"):
        exported(platform, tmp_path / "to", Form.PEFT)
