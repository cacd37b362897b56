"""The guide to a training spec, and what is made from it: rules, findings, the page, the answer of DescribeParameters."""

from __future__ import annotations

import importlib.util
import json
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import given, settings
from hypothesis import strategies as st
from openledger.trainer.v1 import trainer_pb2 as pb

from identity.digest import canonical_json
from openledger_client.training_parameters import GUIDE
from servicekit.errors import InvalidArgument
from servicekit.http_client import Answer, HttpClient
from trainer import convert, specs
from trainer.assessment import Finding, Intent, Severity, assess
from trainer.contract.spec import DEFAULTS, SpecError, TrainingSpec, check_context, resolve
from trainer.facts import DataFacts, Surroundings
from trainer.jobs.ray_jobs import RayJobs
from trainer.jobs.runner import cores
from trainer.suggestion import suggest

ROOT = Path(__file__).resolve().parents[3]
SNAPSHOT = "datanets/threat-intel/snapshots/1"
FACTS = DataFacts(
    train_records=2000,
    train_clusters=2000,
    held_out_records=400,
    mean_characters=140.0,
    long_characters=300.0,
    largest_share=0.2,
)
AROUND = Surroundings(context=1024, cores=2)


def judged(user: dict[str, Any], facts: DataFacts = FACTS, around: Surroundings = AROUND) -> list[Finding]:
    """What is said of the spec that these values make."""
    return assess(resolve(user, suggest(facts, user, around)).spec, facts, Intent(), around)


def said(user: dict[str, Any], parameter: str) -> Finding:
    return next(finding for finding in judged(user) if finding.parameter == parameter)


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """`tools/gen_training_parameters.py`, which is a program and in no package."""
    path = ROOT / "tools" / "gen_training_parameters.py"
    spec = importlib.util.spec_from_file_location("gen_training_parameters", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_rules_of_the_proto_and_the_table_of_the_page_are_current(generator: ModuleType) -> None:
    assert not generator.stale(generator.PROTO, generator.proto)
    assert not generator.stale(generator.PAGE, generator.page)


def test_every_sentence_of_a_refusal_is_read_whole() -> None:
    """servicekit.errors cuts a violation's description at 220 characters; `check` puts the value before the sentence."""
    sentences = [s for guide in GUIDE.values() for s in (guide.too_small, guide.too_large)]
    assert max(map(len, sentences)) <= 180


def test_a_changed_guide_makes_them_stale(generator: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    wider = {**GUIDE, "steps": replace(GUIDE["steps"], most=7)}
    monkeypatch.setattr(generator, "GUIDE", wider)
    assert generator.stale(generator.PROTO, generator.proto)
    assert generator.stale(generator.PAGE, generator.page)


def test_the_guide_names_the_values_of_the_message_and_of_the_contract() -> None:
    fields = [field.name for field in pb.TrainingSpec.DESCRIPTOR.fields if field.name != "rehearsal"]
    fields += [f"rehearsal.{field.name}" for field in pb.RehearsalSpec.DESCRIPTOR.fields]
    assert set(GUIDE) == set(fields) == set(suggest(FACTS, {}).values())


def test_choices_of_the_message_are_those_of_the_guide() -> None:
    for field in (*pb.TrainingSpec.DESCRIPTOR.fields, pb.RehearsalSpec.DESCRIPTOR.fields_by_name["kind"]):
        if field.type == FieldDescriptor.TYPE_ENUM:
            name = "rehearsal.kind" if field.name == "kind" else field.name
            words = [value.name.lower() for value in field.enum_type.values if value.number]
            assert len(words) == len(GUIDE[name].choices)
            assert all(word.endswith(choice) for word, choice in zip(words, GUIDE[name].choices, strict=True))


@given(
    records=st.integers(10, 100_000),
    characters=st.floats(1.0, 40_000.0),
    context=st.none() | st.integers(64, 131_072),
)
@settings(max_examples=150, deadline=None)
def test_a_suggestion_never_triggers_a_warning(records: int, characters: float, context: int | None) -> None:
    """Of the data it may still be said that they are few: no suggestion changes that."""
    facts = replace(FACTS, train_records=records, train_clusters=records, long_characters=characters)
    around = Surroundings(context=context, cores=1)
    found = [finding for finding in judged({}, facts, around) if finding.parameter != "snapshots"]
    assert [finding for finding in found if finding.severity is not Severity.INFO] == []
    spec = resolve({}, suggest(facts, {}, around)).spec
    check_context(spec, context or 131_072)


def test_few_records_are_seen_five_times_at_most() -> None:
    spec = suggest(replace(FACTS, train_records=39), {})
    assert (spec.steps, spec.batch_size) == (40, 4)


@pytest.mark.parametrize(
    ("user", "parameter", "severity"),
    [
        ({"learning_rate": 1e-2}, "learning_rate", Severity.DANGER),
        ({"learning_rate": 0.1}, "learning_rate", Severity.DANGER),
        ({"learning_rate": 1e-5, "steps": 200}, "learning_rate", Severity.WARNING),
        ({"lora_alpha": 1, "lora_rank": 256}, "lora_alpha", Severity.WARNING),
        ({"lora_alpha": 64, "method": "rslora"}, "lora_alpha", Severity.WARNING),
        ({"workers": 16}, "workers", Severity.DANGER),
        ({"rehearsal.tokens_each": 2}, "rehearsal.tokens_each", Severity.WARNING),
        ({"rehearsal.kl_weight": 0.0}, "rehearsal.kl_weight", Severity.WARNING),
        ({"lora_dropout": 0.5}, "lora_dropout", Severity.WARNING),
        ({"weight_decay": 0.5}, "weight_decay", Severity.WARNING),
        ({"max_grad_norm": 0.0}, "max_grad_norm", Severity.WARNING),
        ({"epochs": 9.0}, "steps", Severity.WARNING),
        ({"gradient_accumulation": 16, "steps": 100}, "steps", Severity.WARNING),
        ({"schedule": "constant"}, "schedule", Severity.INFO),
    ],
    ids=str,
)
def test_a_value_that_costs_something_is_answered_with_the_guides_sentence(
    user: dict[str, Any], parameter: str, severity: Severity
) -> None:
    found, guide = said(user, parameter), GUIDE[parameter]
    assert found.severity is severity
    assert any(sentence and sentence in found.consequence for sentence in (guide.below, guide.above))


def test_cores_that_ray_does_not_tell_are_no_finding() -> None:
    assert all(finding.parameter != "workers" for finding in judged({"workers": 16}, around=Surroundings()))


@pytest.mark.parametrize(
    ("user", "parameter"),
    [
        ({"learning_rate": 1.0}, "learning_rate"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"steps": 0}, "steps"),
        ({"rehearsal.tokens_each": 1}, "rehearsal.tokens_each"),
        ({"lora_dropout": 1.0}, "lora_dropout"),
        ({"method": "dora"}, "method"),
    ],
    ids=str,
)
def test_a_value_outside_its_range_is_refused_with_the_guides_sentence(
    user: dict[str, Any], parameter: str
) -> None:
    with pytest.raises(SpecError) as caught:
        resolve(user, suggest(FACTS, {}))
    assert caught.value.parameter == parameter
    guide = GUIDE[parameter]
    assert caught.value.rule.endswith((guide.too_small, guide.too_large))


def test_epochs_make_steps_and_stand_beside_them_in_no_spec() -> None:
    user = {"epochs": 3.0}
    effective = resolve(user, suggest(FACTS, user))
    assert (effective.spec.steps, effective.spec.epochs) == (375, 3.0)
    assert (effective.origins["epochs"], effective.origins["steps"]) == ("user", "user")
    with pytest.raises(SpecError, match="epochs is set although steps is"):
        resolve({**user, "steps": 375}, suggest(FACTS, user))


def test_an_alpha_that_no_adapter_can_store_is_refused_before_the_run() -> None:
    user = {"method": "rslora", "lora_rank": 256, "lora_alpha": 1024}
    with pytest.raises(SpecError, match="at most 4096"):
        resolve(user, suggest(FACTS, user))


def test_zero_is_a_value_and_what_is_not_set_is_left_to_the_platform() -> None:
    given_ = pb.TrainingSpec(warmup_ratio=0.0, seed=0, rehearsal=pb.RehearsalSpec(kl_weight=0.0))
    values = specs.to_values(pb.TrainingSpec.FromString(given_.SerializeToString()))
    assert values == {"warmup_ratio": 0.0, "seed": 0, "rehearsal.kl_weight": 0.0}
    effective = resolve(values, suggest(FACTS, values))
    assert (effective.spec.warmup_ratio, effective.spec.rehearsal.kl_weight) == (0.0, 0.0)
    assert {effective.origins[path] for path in values} == {"user"}
    assert specs.to_values(pb.TrainingSpec()) == {}


def test_every_value_reaches_the_effective_spec_and_its_message() -> None:
    user = {
        "method": "rslora", "lora_dropout": 0.1, "weight_decay": 0.01, "schedule": "linear", "epochs": 1.0,
        "gradient_accumulation": 2, "max_grad_norm": 0.5, "precision": "bf16", "rehearsal.kind": "none",
    }  # fmt: skip
    effective = resolve(user, suggest(FACTS, user))
    message = specs.to_proto(effective.spec)
    assert specs.to_values(message).items() >= user.items()
    assert not message.rehearsal.HasField("kl_weight")
    shown = {value.parameter: value.origin for value in specs.values(effective.spec, effective.origins)}
    assert {shown[path] for path in user} == {"user"}


def test_a_spec_of_the_first_release_is_read_as_it_ran() -> None:
    now = suggest(FACTS, {})
    younger = {"method", "lora_dropout", "weight_decay", "schedule", "epochs", "gradient_accumulation",
               "max_grad_norm", "precision"}  # fmt: skip
    old = {name: value for name, value in now.to_json().items() if name not in younger}
    assert TrainingSpec.from_json(old) == now
    assert {path: DEFAULTS[path] for path in younger}.items() <= now.values().items()
    assert {value.origin for value in specs.values(now, {})} == {"default"}


def test_a_snapshot_that_is_named_twice_is_refused() -> None:
    twice = [pb.WeightedSnapshot(snapshot=SNAPSHOT), pb.WeightedSnapshot(snapshot=SNAPSHOT, weight=2.0)]
    request = pb.AssessTrainingSpecRequest(base_model="baseModels/tiny", snapshots=twice)
    with pytest.raises(InvalidArgument, match="named twice"):
        convert.to_proposal(request)


def refusal(trainer: Any, spec: pb.TrainingSpec, **fields: Any) -> tuple[str, str]:
    """Field and sentence of an INVALID_ARGUMENT."""
    request = pb.AssessTrainingSpecRequest(
        base_model="baseModels/tiny", snapshots=[pb.WeightedSnapshot(snapshot=SNAPSHOT)], spec=spec
    )
    with pytest.raises(grpc.RpcError) as caught:
        trainer.stub().AssessTrainingSpec(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, caught.value.details()
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in rpc_status.from_call(caught.value).details)
    return bad.field_violations[0].field, bad.field_violations[0].description


def test_the_api_refuses_with_the_guides_sentence(trainer: Any) -> None:
    base = _publish_base(trainer, context=512)
    trainer.seal()
    field, sentence = refusal(trainer, pb.TrainingSpec(learning_rate=1.0))
    assert (field, sentence) == ("spec.learning_rate", GUIDE["learning_rate"].too_large)
    field, sentence = refusal(trainer, pb.TrainingSpec(steps=0))
    assert (field, sentence) == ("spec.steps", GUIDE["steps"].too_small)
    field, sentence = refusal(trainer, pb.TrainingSpec(rehearsal=pb.RehearsalSpec(tokens_each=1)))
    assert (field, sentence) == ("spec.rehearsal.tokens_each", GUIDE["rehearsal.tokens_each"].too_small)
    field, sentence = refusal(trainer, pb.TrainingSpec(max_tokens=513))
    assert field == "spec.max_tokens"
    assert "the base's context is 512 tokens" in sentence
    assert base


def test_ray_is_asked_for_its_cores_when_a_run_shares_them(trainer: Any) -> None:
    trainer.seal()
    created = trainer.create(spec=pb.TrainingSpec(workers=16))
    worst = created.assessment.findings[0]
    assert (worst.severity, worst.parameter) == (pb.SEVERITY_DANGER, "workers")
    assert "Ray has 2 cores" in worst.consequence


def test_describe_parameters_answers_the_guide(trainer: Any) -> None:
    stub = trainer.stub()
    found = stub.DescribeParameters(pb.DescribeParametersRequest()).parameters
    assert [parameter.name for parameter in found] == list(GUIDE)
    (one,) = stub.DescribeParameters(pb.DescribeParametersRequest(parameter="lora_dropout")).parameters
    assert (one.least, one.most, one.most_excluded, one.warn_above) == (0.0, 1.0, True, 0.3)
    assert not one.HasField("warn_below")
    with pytest.raises(grpc.RpcError, match="the nearest is learning_rate"):
        stub.DescribeParameters(pb.DescribeParametersRequest(parameter="learnin_rate"))


def _publish_base(trainer: Any, context: int) -> str:
    """Makes the registered base one whose configuration can be read; returns its digest."""
    objects = trainer.service.objects
    config = objects.put_bytes(canonical_json({"max_position_embeddings": context}))
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    manifest = {
        "kind": "base-model",
        "name": "t",
        "licence": "x",
        "source": "x",
        "files": dict.fromkeys(names, config),
    }
    digest = objects.put_bytes(canonical_json(manifest))
    path = trainer.settings.state_dir / "trainer" / "base_models" / "tiny.json"
    path.write_text(path.read_text().replace(_digest_of(path), digest))
    return str(digest)


def _digest_of(path: Path) -> str:
    return str(json.loads(path.read_text())["digest"])


def test_cores_are_those_of_the_nodes_that_live(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        {"state": "ALIVE", "resources_total": {"CPU": 2.0, "memory": 1e9}},
        {"state": "ALIVE", "resources_total": {"CPU": 4.0}},
        {"state": "ALIVE", "resources_total": {}},
        {"state": "DEAD", "resources_total": {"CPU": 64.0}},
    ]
    answers = [
        Answer(200, json.dumps({"result": True, "data": {"result": {"result": nodes}}}).encode(), {}),
        Answer(200, b'{"data": null}', {}),
        Answer(500, b"Ray's state is not available", {}),
    ]
    monkeypatch.setattr(HttpClient, "exchange", lambda *_, **__: answers.pop(0))
    ray = RayJobs("http://ray.example")
    assert [cores(ray), cores(ray), cores(ray)] == [6, None, None]
