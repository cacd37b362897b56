"""Templates: plain substitution, named by digest, tokens that generation would produce."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from modelkit.plain_text import token_ids
from modelkit.prompt import PromptTemplate, TemplateError, encode
from modelkit.training_manifest import (
    InvalidTrainingManifest,
    ManifestRehearsal,
    ManifestSnapshot,
    TrainingManifest,
)
from modelkit.weights import tiny

TEMPLATE = PromptTemplate("Report: {text}\nTactic:", " {tactic}")
RECORD = {"text": "It wiped {disks} and %s.", "tactic": "impact"}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return tiny.tokenizer()


def test_a_record_becomes_prompt_and_completion_as_it_is() -> None:
    assert TEMPLATE.render(RECORD) == ("Report: It wiped {disks} and %s.\nTactic:", " impact")
    assert PromptTemplate("{{{text}}}", "x").render_prompt({"text": "a"}) == "{a}"
    assert TEMPLATE.fields == {"text", "tactic"}


def test_a_template_is_named_by_what_it_says() -> None:
    assert TEMPLATE.digest == PromptTemplate(TEMPLATE.prompt, TEMPLATE.completion).digest
    assert TEMPLATE.digest != PromptTemplate(TEMPLATE.prompt + " ", TEMPLATE.completion).digest


@pytest.mark.parametrize(
    "text", ["{text.__class__}", "{text[0]}", "{text!r}", "{text:>9999999}", "{0}", "{}", "{text", "text}"]
)
def test_nothing_but_plain_fields_is_accepted(text: str) -> None:
    with pytest.raises(TemplateError):
        PromptTemplate(text, "x")


def test_missing_fields_and_other_types_are_named() -> None:
    for record in ({"text": "a"}, {"text": "a", "tactic": 3}):
        with pytest.raises(TemplateError) as caught:
            TEMPLATE.render(record)
        assert caught.value.field == "tactic"
    with pytest.raises(TemplateError, match="text"):
        TEMPLATE.check_fields(["body", "tactic"])
    with pytest.raises(TemplateError):
        PromptTemplate("x", "")


@given(st.text(), st.text())
def test_what_a_record_holds_is_never_read_as_a_template(text: str, tactic: str) -> None:
    assert TEMPLATE.render({"text": text, "tactic": tactic}) == (f"Report: {text}\nTactic:", f" {tactic}")


def test_the_completion_is_tokenised_apart_and_ended(tokenizer: PreTrainedTokenizerBase) -> None:
    encoded = encode(TEMPLATE, tokenizer, RECORD)
    prompt, completion = TEMPLATE.render(RECORD)
    assert list(encoded.tokens[: encoded.completion_start]) == token_ids(tokenizer, prompt)
    assert list(encoded.completion) == [*token_ids(tokenizer, completion), tokenizer.eos_token_id]
    assert not encoded.truncated


def test_too_long_a_prompt_loses_its_beginning(tokenizer: PreTrainedTokenizerBase) -> None:
    whole, cut = (encode(TEMPLATE, tokenizer, RECORD, limit) for limit in (512, 12))
    assert cut.truncated
    assert cut.tokens == whole.tokens[-12:]
    assert cut.completion == whole.completion
    with pytest.raises(TemplateError, match="completion"):
        encode(TEMPLATE, tokenizer, RECORD, 2)


def test_a_training_manifest_survives_its_bytes() -> None:
    snapshot = ManifestSnapshot(
        name="datanets/t/snapshots/1",
        root="r",
        records_digest="d",
        manifest_digest="m",
        weight=1.0,
        prompt="p",
        completion="c",
        template_digest="t",
        records={"sha256:a": 2},
    )
    rehearsal = ManifestRehearsal(kind="none", digest="", sequences=0, tokens=0)
    manifest = TrainingManifest(
        base_digest="b",
        adapter_digest="a",
        snapshots=(snapshot,),
        rehearsal=rehearsal,
        spec={"steps": 3},
        origins={"steps": "user"},
        steps=3,
        truncated_records=0,
        compute={"dtype": "float32"},
        packages={"torch": "2"},
    )
    assert TrainingManifest.from_bytes(manifest.to_bytes()) == manifest
    for other in (b"", b"[]", b'{"kind": "training-manifest", "version": 9}', manifest.to_bytes()[:-1]):
        with pytest.raises(InvalidTrainingManifest):
            TrainingManifest.from_bytes(other)
