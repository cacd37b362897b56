"""Base models and adapters by digest: the same everywhere, and nothing foreign gets in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from identity.digest import canonical_json
from modelkit import base_model
from modelkit.adapter import CONFIG_FILE, WEIGHTS_FILE, InvalidAdapter, base_of
from modelkit.base_model import InvalidBaseModel
from modelkit.weights import adapter, loading, tiny
from modelkit.weights.compute import Compute, measure
from servicekit.errors import NotFound
from servicekit.objects import ObjectStore

FP32 = Compute(
    device="cpu", dtype="float32", gflops={}, torch_version=torch.__version__, threads=1, reason="test"
)
TOKENS = torch.tensor([[5, 90, 300, 7]])


class Shelf:
    """A store with the tiny base and an adapter of it as PEFT writes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = ObjectStore(folder / "objects")
        self.base = tiny.create_tiny(self.store)
        model, _ = self.load()
        tuned = get_peft_model(
            model,
            LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"]),
        )
        torch.manual_seed(1)
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        self.logits = tuned(TOKENS).logits
        self.saved = folder / "saved"
        tuned.save_pretrained(str(self.saved))
        self.adapter = adapter.publish(self.saved, self.base, self.store)

    def load(self) -> tuple[Any, Any]:
        return loading.load(base_model.materialise(self.base, self.store, self.folder / "models"), FP32)

    def changed(
        self, tmp_path: Path, config: dict[str, Any], weights: dict[str, torch.Tensor] | None = None
    ) -> Path:
        """The saved adapter with other contents."""
        content = json.loads((self.saved / CONFIG_FILE).read_bytes()) | config
        (tmp_path / CONFIG_FILE).write_text(json.dumps(content))
        save_file(
            load_file(self.saved / WEIGHTS_FILE) if weights is None else weights, tmp_path / WEIGHTS_FILE
        )
        return tmp_path


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("shelf"))


def test_the_same_seed_makes_the_same_base_digest(shelf: Shelf, tmp_path: Path) -> None:
    other = ObjectStore(tmp_path)
    assert tiny.create_tiny(other) == shelf.base
    assert tiny.create_tiny(other, seed=1) != shelf.base


def test_a_base_model_is_unpacked_once_and_loads(shelf: Shelf) -> None:
    folder = base_model.materialise(shelf.base, shelf.store, shelf.folder / "models")
    assert base_model.materialise(shelf.base, shelf.store, shelf.folder / "models") == folder
    model, tokenizer = shelf.load()
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert base_model.parameter_count(shelf.base, shelf.store) == sum(p.numel() for p in model.parameters())
    text = "Üben: 日本 🙂 {x}"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_objects_that_are_no_base_model_are_refused(shelf: Shelf) -> None:
    files = dict(base_model.read_manifest(shelf.base, shelf.store).files)
    for content, said in [
        (b"not json", "not JSON"),
        (canonical_json({"kind": "adapter"}), "manifest"),
        (canonical_json({"kind": "base-model", "files": {}}), "lacks"),
        (
            canonical_json({"kind": "base-model", "files": {**files, "modeling.py": shelf.base}}),
            "modeling.py",
        ),
    ]:
        with pytest.raises(InvalidBaseModel, match=said):
            base_model.read_manifest(shelf.store.put_bytes(content), shelf.store)
    with pytest.raises(NotFound):
        base_model.read_manifest("sha256:" + "0" * 64, shelf.store)


def test_a_fetched_adapter_gives_the_logits_it_was_saved_with(shelf: Shelf, tmp_path: Path) -> None:
    folder = adapter.fetch(shelf.adapter, shelf.store, tmp_path, shelf.base)
    model, _ = shelf.load()
    torch.testing.assert_close(PeftModel.from_pretrained(model, str(folder))(TOKENS).logits, shelf.logits)


def test_an_adapter_digest_does_not_depend_on_where_it_was_saved(shelf: Shelf, tmp_path: Path) -> None:
    moved = shelf.changed(tmp_path, {"base_model_name_or_path": "/elsewhere", "peft_version": "9"})
    assert adapter.publish(moved, shelf.base, shelf.store) == shelf.adapter


def test_an_adapter_of_another_base_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    other = tiny.create_tiny(shelf.store, seed=1)
    with pytest.raises(InvalidAdapter, match=shelf.base):
        adapter.fetch(shelf.adapter, shelf.store, tmp_path, other)
    assert base_of(shelf.adapter, shelf.store) == shelf.base


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"peft_type": "IA3"}, "peft_type"),
        ({"bias": "all"}, "bias"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"use_rslora": True}, "use_rslora"),
        ({"r": 5000}, "r is 5000"),
        ({"r": 8}, "rank 8"),
        ({"lora_alpha": 0}, "lora_alpha"),
        ({"target_modules": "all-linear"}, "target_modules"),
        ({"target_modules": ["q_proj"]}, "not a LoRA weight of a target"),
    ],
)
def test_configurations_outside_plain_lora_are_refused(
    shelf: Shelf, tmp_path: Path, config: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidAdapter, match=said):
        adapter.publish(shelf.changed(tmp_path, config), shelf.base, shelf.store)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda name, tensor: {name: tensor * float("nan")}, "not finite"),
        (lambda name, tensor: {name: tensor.int()}, "type"),
        (lambda name, tensor: {name + ".extra": tensor}, "not a LoRA weight"),
        (lambda name, tensor: {}, "lora_A and lora_B"),
        (lambda name, tensor: {name: tensor[:, :-1].contiguous()}, "inputs to"),
        (lambda name, tensor: {name: torch.cat([tensor, tensor], dim=1)}, "inputs to"),
    ],
)
def test_weights_that_would_spoil_a_model_are_refused(
    shelf: Shelf, tmp_path: Path, change: Callable[[str, torch.Tensor], dict[str, torch.Tensor]], said: str
) -> None:
    weights = load_file(shelf.saved / WEIGHTS_FILE)
    name = min(weights)
    weights.update(change(name, weights.pop(name)))
    with pytest.raises(InvalidAdapter, match=said):
        adapter.publish(shelf.changed(tmp_path, {}, weights), shelf.base, shelf.store)


def test_weights_for_a_layer_that_the_base_does_not_have_are_refused(shelf: Shelf, tmp_path: Path) -> None:
    weights = {
        name.replace("layers.0", "layers.77"): tensor
        for name, tensor in load_file(shelf.saved / WEIGHTS_FILE).items()
    }
    with pytest.raises(InvalidAdapter, match=r"no layer 'model[.]layers[.]77"):
        adapter.publish(shelf.changed(tmp_path, {}, weights), shelf.base, shelf.store)


def test_a_pickle_under_the_name_of_safetensors_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    folder = shelf.changed(tmp_path, {})
    torch.save({"x": torch.ones(1)}, folder / WEIGHTS_FILE)
    with pytest.raises(InvalidAdapter, match="not safetensors"):
        adapter.publish(folder, shelf.base, shelf.store)


def test_a_stored_adapter_with_unknown_keys_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    files = json.loads(shelf.store.get_bytes(shelf.adapter))["files"]
    config = json.loads(shelf.store.get_bytes(files[CONFIG_FILE])) | {"trust_remote_code": True}
    files = {**files, CONFIG_FILE: shelf.store.put_bytes(canonical_json(config))}
    manifest = canonical_json({"kind": "adapter", "base": shelf.base, "files": files})
    with pytest.raises(InvalidAdapter, match="trust_remote_code"):
        adapter.fetch(shelf.store.put_bytes(manifest), shelf.store, tmp_path, shelf.base)


def test_the_compute_type_is_measured_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENLEDGER_COMPUTE", raising=False)
    measured = measure(seconds_each=0.02)
    if measured.device == "cpu":
        faster = measured.gflops["bfloat16"] > 1.2 * measured.gflops["float32"]
        assert measured.dtype == ("bfloat16" if faster else "float32")
    monkeypatch.setenv("OPENLEDGER_COMPUTE", "bf16")
    assert measure().dtype == "bfloat16"
    assert measure("fp32").torch_dtype is torch.float32
    monkeypatch.setenv("OPENLEDGER_COMPUTE", "int8")
    with pytest.raises(ValueError, match="int8"):
        measure()
