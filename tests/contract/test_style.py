"""The language of the code and the docs: a reader who has never seen this project knows every word of it."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def measure_style() -> ModuleType:
    """`tools/measure_style.py`, which is a program and in no package."""
    path = ROOT / "tools" / "measure_style.py"
    spec = spec_from_file_location("measure_style", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def measured(measure_style: ModuleType) -> Any:
    return measure_style.measure_tree(ROOT)


def test_private_words_and_positional_calls_stay_within_their_bars(
    measure_style: ModuleType, measured: Any
) -> None:
    missed = measure_style.failures(measured)
    found = [*map(str, measured.hits), *measured.positional]
    assert not missed, "\n".join([*missed, "all of them:", *found])


def test_every_kind_of_text_is_measured(measured: Any) -> None:
    """The bars mean something only while the measure finds what it measures."""
    visible = {"string", "help", "proto", "column", "metric"}
    assert {"identifier", "comment", "docstring", "test string", "markdown", *visible} <= set(measured.words)


@pytest.mark.parametrize("path", ["services/x/Dockerfile", "scripts/x.sh"])
def test_comments_of_images_and_scripts_are_measured(
    measure_style: ModuleType, tmp_path: Path, path: str
) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text("#!/bin/sh\nx=1 # the house's lock\n")  # old name
    measured = measure_style.measure(tmp_path, [path])
    assert [(hit.line, hit.kind) for hit in measured.hits] == [(2, "comment")]


@pytest.mark.parametrize(
    ("path", "text", "kind"),
    [
        ("services/x/x/api.py", 'text = "nobody asked"\n', "string"),  # old name
        ("services/x/x/store.py", 'told = Column("told")\n', "column"),  # old name
        ("libs/x/x/metrics.py", 'counter("looks_total", "Polls.")\n', "metric"),  # old name
        ("proto/openledger/a.proto", "// Told when the batch is sealed.\n", "proto"),  # old name
        ("Makefile", "crash: ## ends every life\n", "help"),  # old name
    ],
)
def test_a_private_word_that_a_user_sees_is_refused(
    measure_style: ModuleType, tmp_path: Path, path: str, text: str, kind: str
) -> None:
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(text)
    measured = measure_style.measure(tmp_path, [path])
    assert kind in {hit.kind for hit in measured.visible()}
    assert measure_style.failures(measured)
