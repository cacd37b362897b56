"""The topic registry, what is generated from it, and its examples agree with proto/."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format

from servicekit.eventlog import topics
from servicekit.eventlog.events import new_event

_ROOT = Path(__file__).resolve().parents[3]
_FILES = sorted((_ROOT / "proto" / "topics").glob("*.yaml"))


def test_generated_files_are_what_the_registry_says() -> None:
    check = subprocess.run(
        [sys.executable, _ROOT / "tools" / "gen_topics.py", "--check"], capture_output=True, text=True
    )
    assert check.returncode == 0, check.stdout + check.stderr


def test_every_topic_has_its_constant() -> None:
    assert {path.stem for path in _FILES} == set(topics.BY_NAME)
    assert topics.INFERENCE_COMPLETED_V1.name == "inference.completed.v1"


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.stem)
def test_example_is_a_message_of_the_topic(path: Path) -> None:
    entry = yaml.safe_load(path.read_text())
    package, _, name = entry["messages"][0].rpartition(".")
    modules = [
        package + "." + file.stem for file in (_generated() / package.replace(".", "/")).glob("*_pb2.py")
    ]
    (message_class,) = [
        getattr(module, name) for module in map(importlib.import_module, modules) if hasattr(module, name)
    ]
    message = json_format.ParseDict(entry["example"], message_class())
    new_event(topics.BY_NAME[entry["topic"]], "k", message, "openledger/test")


def _generated() -> Path:
    return _ROOT / "proto" / "python"
