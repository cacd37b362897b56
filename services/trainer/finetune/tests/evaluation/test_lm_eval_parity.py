"""Same questions, same log-likelihoods, same choices as lm-eval: 120 HellaSwag and 320 ARC-Easy items, in fp32.

The vectors are what lm-eval 0.4.13 itself asked of the tiny model, and what it made of the answers:

    python bench/lm_eval_bench.py --folder FOLDER --model tiny --hellaswag 120 --arc-easy 320 --texts 40 --vectors \\
        services/trainer/finetune/tests/evaluation/lm_eval_vectors.json
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from evalstats.rules import Rule, value
from finetune.evaluation.scoring import score_items
from finetune.evaluation.suites import RETAINED
from identity.digest import sha256_bytes
from modelkit.base_model import materialise
from modelkit.weights.compute import measure
from modelkit.weights.loading import load
from modelkit.weights.tiny import create_tiny
from servicekit.objects import ObjectStore

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "lm_eval_vectors.json").read_text())


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    folder = tmp_path_factory.mktemp("tiny")
    store = ObjectStore(folder / "objects")
    base = create_tiny(store)
    assert base == VECTORS["base"], "the tiny model is another: make the vectors again"
    return load(materialise(base, store, folder / "cache"), measure("fp32"))


@pytest.mark.parametrize(("name", "least"), [("hellaswag", 100), ("arc_easy", 300)])
def test_every_choice_is_the_one_that_lm_eval_makes(
    name: str, least: int, loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase]
) -> None:
    vectors = VECTORS["suites"][name]
    assert len(vectors) >= least
    items = RETAINED[name].whole(0).first(len(vectors)).items
    for item, scores, theirs in zip(items, score_items(*loaded, items), vectors, strict=True):
        assert item.id == theirs["id"]
        asked = json.dumps([[item.prompt, option] for option in item.options])
        assert sha256_bytes(asked.encode()) == theirs["asked"], item
        assert scores == pytest.approx(theirs["log_likelihoods"], abs=1e-3), item
        for rule in (Rule.ACC, Rule.ACC_BYTES):
            assert value(rule, scores, item.options, item.gold) == theirs[rule.value], (rule, item)


def test_bits_of_texts_are_those_of_lm_eval(loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> None:
    """lm-eval's figure of a corpus divides all bits by all bytes: the mean of our values, weighted by bytes."""
    vectors = VECTORS["suites"]["bits_per_byte"]
    items = RETAINED["bits_per_byte"].whole(0).first(len(vectors)).items
    scores = score_items(*loaded, items)
    lengths = [len(item.options[0].encode()) for item in items]
    bits = [
        value(Rule.BITS_PER_BYTE, each, item.options, 0) for each, item in zip(scores, items, strict=True)
    ]
    weighted = sum(bit * length for bit, length in zip(bits, lengths, strict=True)) / sum(lengths)
    theirs = -sum(vector["log_likelihoods"][0] for vector in vectors) / math.log(2) / sum(lengths)
    assert weighted == pytest.approx(theirs, rel=1e-5)
