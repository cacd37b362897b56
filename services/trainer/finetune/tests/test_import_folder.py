"""A hostile, broken or unknown folder is refused by name, with what would be right, and nothing is published."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from finetune.import_folder import checked_licence, import_folder
from modelkit.base_folder import RefusedFolder
from modelkit.weights import tiny
from trainer.contract.base_models import read, registered_path

SIZES: dict[str, Any] = {"vocab_size": 1024, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
LLAMA: dict[str, Any] = {
    **SIZES, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64,
}  # fmt: skip


def save(model: Any, folder: Path) -> Path:
    model.save_pretrained(str(folder))
    tiny.tokenizer().save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(LlamaForCausalLM(LlamaConfig(**LLAMA)), tmp_path_factory.mktemp("good") / "folder")


def imported(folder: Path, state: Path, **changes: str) -> Any:
    words = {"name": "mine", "licence": "MIT", "source": "a test", **changes}
    return import_folder(folder, state_dir=state, object_store=str(state / "objects"), **words)


def write(name: str, content: str = "") -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(content)


def set_json(name: str, **values: Any) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, **values}))

    return change


def tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], Any]:
    def rewrite(folder: Path) -> None:
        found = load_file(folder / "model.safetensors")
        change(found)
        save_file(found, folder / "model.safetensors", metadata={"format": "pt"})

    return rewrite


def link_out(folder: Path) -> None:
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "generation_config.json").symlink_to("/etc/hostname")


NORM = "model.norm.weight"
REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "pickle": (
        write("pytorch_model.bin"),
        r"pytorch_model.bin may run code .* save the model as safetensors",
    ),
    "code": (write("modeling_mine.py"), "modeling_mine.py is code"),
    "link": (link_out, "generation_config.json is a link out of the folder"),
    "remote code": (
        set_json("config.json", auto_map={"AutoModel": "m.M"}),
        "config.json: auto_map names code",
    ),
    "tokenizer's code": (
        set_json("tokenizer_config.json", auto_map={"A": "t.T"}),
        "tokenizer_config.json: auto_map",
    ),
    "no configuration": (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
    "no tokenizer": (
        lambda folder: (folder / "tokenizer.json").unlink(),
        r"tokenizer.json is missing; save the fast",
    ),
    "no JSON": (write("config.json", "{"), "config.json is not JSON"),
    "quantised": (set_json("config.json", quantization_config={"bits": 4}), "quantization_config is set"),
    "no causal model": (set_json("config.json", model_type="resnet"), "'resnet' is no causal language model"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "there is no .safetensors file"),
    "shard without index": (write("model-2.safetensors"), "without model.safetensors.index.json"),
    "no safetensors": (write("model.safetensors", "x" * 64), "model.safetensors is not safetensors"),
    "other sizes": (set_json("config.json", intermediate_size=48), r"3 tensors do not fit config.json"),
    "missing tensor": (tensors(lambda found: found.pop(NORM)), "1 tensors are missing, model.norm.weight"),
    "extra tensor": (tensors(lambda found: found.update(x=torch.ones(1))), "1 tensors belong to no layer, x"),
    "not finite": (
        tensors(lambda found: found[NORM].fill_(float("nan"))),
        "'model.norm.weight' holds a number",
    ),
    "integers": (
        tensors(lambda found: found.update({NORM: torch.ones(16).int()})),
        "'model.norm.weight' is int32",
    ),
    "no end": (set_json("tokenizer_config.json", eos_token=None), "eos_token is missing"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_folder_that_is_not_right_is_refused_by_name(case: str, good: Path, tmp_path: Path) -> None:
    change, said = REFUSED[case]
    folder = tmp_path / "folder"
    shutil.copytree(good, folder)
    change(folder)
    with pytest.raises(RefusedFolder, match=said):
        imported(folder, tmp_path / "state")
    assert not registered_path(tmp_path / "state", "mine").exists()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            lambda: GPT2LMHeadModel(GPT2Config(**SIZES, n_embd=16, n_layer=1, n_head=2)),
            "no plain linear layers",
        ),
        (
            lambda: GraniteForCausalLM(GraniteConfig(**LLAMA, logits_scaling=8.0)),
            "changes its logits after the head",
        ),
        (
            lambda: LlamaForCausalLM(LlamaConfig(**{**LLAMA, "vocab_size": 512})),
            "ids up to 1023, .* below 512",
        ),
    ],
    ids=["gpt2", "granite", "other vocabulary"],
)
def test_a_model_that_the_platform_would_tune_wrongly_is_refused(
    model: Callable[[], Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(RefusedFolder, match=said):
        imported(save(model(), tmp_path / "folder"), tmp_path / "state")


def test_a_name_stands_for_one_model(good: Path, tmp_path: Path) -> None:
    first = imported(good, tmp_path)
    assert imported(good, tmp_path) == read(registered_path(tmp_path, "mine")) == first
    other = save(LlamaForCausalLM(LlamaConfig(**LLAMA)), tmp_path / "other")
    with pytest.raises(RefusedFolder, match=f"'mine' is {first.digest}"):
        imported(other, tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "tiny"}, "tiny are packaged models"),
        ({"name": "My Base"}, "choose 1 to 63 of"),
        ({"licence": "free as in beer"}, "is no SPDX licence expression"),
        ({"licence": ""}, "is no SPDX licence expression"),
    ],
)
def test_a_wrong_name_or_licence_is_refused(
    changes: dict[str, str], said: str, good: Path, tmp_path: Path
) -> None:
    with pytest.raises(RefusedFolder, match=said):
        imported(good, tmp_path, **changes)


def test_licences_are_expressions_of_spdx() -> None:
    assert checked_licence("apache-2.0 or mit") == "Apache-2.0 OR MIT"
    assert checked_licence("LicenseRef-llama3") == "LicenseRef-llama3"
