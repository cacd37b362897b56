"""inference: a tiny base and a promoted version answer requests; every answer reported as finished is recorded and sent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from openledger.inference.v1 import inference_pb2 as pb
from openledger.inference.v1.inference_pb2_grpc import InferenceServiceStub
from openledger.trainer.v1 import events_pb2, trainer_pb2

from identity.digest import sha256_bytes
from inference.service import build
from inference.settings import InferenceSettings
from modelkit import base_model
from modelkit.weights import adapter, loading
from modelkit.weights.compute import measure
from modelkit.weights.tiny import create_tiny
from openledger_testing.crash.service_run import Using, acknowledged
from openledger_testing.crash.service_run import live as live_service
from openledger_testing.crash.stored_state import check_at_rest, check_objects, events, one
from servicekit.eventlog import open_event_log, topics
from servicekit.eventlog.events import new_event, to_record
from servicekit.objects import ObjectStore
from servicekit.testing.waiting import eventually

VERSION = "models/colours/versions/1"
QUESTIONS = ("baseModels/tiny", VERSION, VERSION)


def prepare(folder: Path) -> None:
    """An adapter in the object store; the event that its version was promoted waits in the log."""
    import torch
    from peft import LoraConfig, get_peft_model

    store = ObjectStore(folder / "objects")
    base = create_tiny(store)
    model, _ = loading.load(base_model.materialise(base, store, folder / "made"), measure("fp32"))
    torch.manual_seed(0)
    tuned = get_peft_model(
        model, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "down_proj"])
    )
    tuned.save_pretrained(str(folder / "made" / "adapter"))
    promoted = trainer_pb2.ModelVersion(
        name=VERSION, state=trainer_pb2.MODEL_VERSION_STATE_PROMOTED, digest=sha256_bytes(b"version"), base_digest=base,
        adapter_digest=adapter.publish(folder / "made" / "adapter", base, store), owner="owner",
    )  # fmt: skip
    log = open_event_log(f"embedded:{folder / 'events.db'}")
    log.ensure_topics([topics.MODEL_VERSION_V1])
    message = events_pb2.ModelVersionChanged(model_version=promoted)
    log.producer().send([to_record(new_event(topics.MODEL_VERSION_V1, "models/colours", message, "test"))])
    log.close()


def database(folder: Path) -> Path:
    return folder / "inference" / "inference.db"


def live(folder: Path) -> None:
    os.environ["OPENLEDGER_COMPUTE"] = "fp32"
    settings = InferenceSettings(
        state_dir=folder, auth_mode="development", base_model="tiny", grace_s=5, log_level="WARNING"
    )
    live_service(build(settings), folder, use)


def use(using: Using) -> None:
    stub = using.stub(InferenceServiceStub, "asker", "user")
    eventually(lambda: is_served(stub), "the promoted version is served")
    for model in QUESTIONS:
        sampling = pb.SamplingParameters(max_output_tokens=4)
        parts = list(stub.Generate(pb.GenerateRequest(model=model, prompt="What colour?", sampling=sampling)))
        assert parts[-1].HasField("finished"), parts[-1]
        using.acknowledged(parts[0].started.inference.removeprefix("inferences/"))
    finished = acknowledged(using.folder)
    eventually(
        lambda: set(finished) <= set(events(using.folder, topics.INFERENCE_COMPLETED_V1.name)),
        "answers are sent",
    )
    eventually(
        lambda: one(database(using.folder), "SELECT count(*) FROM inbox") == 1,
        "the version's event is handled",
    )


def is_served(stub: Any) -> bool:
    return VERSION in {model.name for model in stub.ListServedModels(pb.ListServedModelsRequest()).models}


def check(folder: Path) -> None:
    answers = events(folder, topics.INFERENCE_COMPLETED_V1.name)
    finished = acknowledged(folder)
    assert len(finished) >= len(QUESTIONS)
    assert set(finished) <= set(answers), "every answer that was reported as finished is in the log"
    assert all(message.inference == f"inferences/{ce_id}" for ce_id, message in answers.items())
    check_objects(folder)
    check_at_rest(folder, database(folder), "inference", topics.MODEL_VERSION_V1.name)
