"""Claims about the whole service in this process: gRPC and HTTP APIs, promotion by event, cancellation."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from openledger.inference.v1 import inference_pb2 as pb
from openledger.inference.v1.inference_pb2_grpc import InferenceServiceStub
from openledger.trainer.v1 import events_pb2, trainer_pb2
from prometheus_client import REGISTRY

from inference.service import assemble, build
from inference.settings import InferenceSettings
from openledger_client.channels import sync_channel
from openledger_client.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OpenLedgerError,
    PermissionDenied,
    from_rpc_error,
)
from servicekit.errors import StartupError
from servicekit.eventlog.events import Event, new_event, to_record
from servicekit.eventlog.topics import MODEL_VERSION_V1
from servicekit.server import Service
from servicekit.testing.services import running, token
from servicekit.testing.waiting import LONGEST_S, eventually
from servicekit.wal import Wal

pytestmark = pytest.mark.slow

PROMOTED = trainer_pb2.MODEL_VERSION_STATE_PROMOTED
BLOCKED = trainer_pb2.MODEL_VERSION_STATE_BLOCKED


class Running:
    """A service, its answers' events, and a stub for it."""

    def __init__(self, service: Service, recorded: list[Event[Any]]) -> None:
        self.service = service
        self.recorded = recorded
        assert service.address is not None
        self.http = f"http://{service.address.http}"
        self.token = token(service, ["user"])
        self.stub = self.stub_for(self.token)

    def stub_for(self, bearer: str | None) -> Any:
        assert self.service.address is not None
        return InferenceServiceStub(sync_channel(self.service.address.grpc, bearer))

    def tell(self, name: str, state: Any, base_digest: str, adapter_digest: str) -> None:
        version = trainer_pb2.ModelVersion(
            name=name,
            state=state,
            base_digest=base_digest,
            adapter_digest=adapter_digest,
            owner="owner",
            digest="v",
        )
        message = events_pb2.ModelVersionChanged(model_version=version)
        message.event_time.GetCurrentTime()
        event = new_event(MODEL_VERSION_V1, name.partition("/versions/")[0], message, "openledger/trainer")
        producer = self.service.event_log.producer()
        producer.send([to_record(event)])
        producer.close()

    def ask(self, model: str, prompt: str = "The actor", timeout: float = LONGEST_S, **sampling: Any) -> Any:
        asked = pb.SamplingParameters(**{"max_output_tokens": 8, **sampling})
        request = pb.GenerateRequest(model=model, prompt=prompt, sampling=asked, request_id="r1")
        return self.stub.Generate(request, timeout=timeout)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, world: Any) -> Iterator[Running]:
    settings = InferenceSettings(
        state_dir=tmp_path_factory.mktemp("state"),
        auth_mode="development",
        base_model="tiny",
        adapter_slots=2,
        max_sequences=4,
        grace_s=2,
    )
    service = Service("inference", settings, "inference")
    for digest in world.adapters:
        _copy(world.store, service.objects, digest)
    recorded: list[Event[Any]] = []
    assemble(service, settings, recorded.append)
    service.event_log.ensure_topics([MODEL_VERSION_V1])
    with running(service):
        yield Running(service, recorded)


@pytest.fixture
def served(shared: Running) -> Running:
    """The shared service, with the events of former tests forgotten; each test has models of its own."""
    shared.recorded.clear()
    return shared


def _copy(source: Any, target: Any, digest: str) -> None:
    manifest = source.get_bytes(digest)
    for file in json.loads(manifest)["files"].values():
        target.put_bytes(source.get_bytes(file))
    target.put_bytes(manifest)


def running_answers() -> float:
    """Returns how full the batch is: 0 while the engine has nothing to do."""
    return REGISTRY.get_sample_value("openledger_saturation_ratio", {"resource": "batch_sequences"}) or 0.0


def refusal(call: Any) -> OpenLedgerError:
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    return from_rpc_error(caught.value)


def names(one: Running) -> list[str]:
    return [model.name for model in one.stub.ListServedModels(pb.ListServedModelsRequest()).models]


def test_a_promoted_version_answers_beside_its_base_and_a_blocked_one_does_not(
    served: Running, world: Any
) -> None:
    assert "baseModels/tiny" in names(served)
    assert isinstance(refusal(served.ask("models/mm")), NotFound)
    version = "models/mm/versions/1"
    served.tell(version, PROMOTED, world.base_digest, world.adapters[0])
    eventually(lambda: version in names(served))

    parts = {name: list(served.ask(name)) for name in ("baseModels/tiny", "models/mm", version)}
    for name, (started, *deltas, finished) in parts.items():
        assert started.started.inference.startswith("inferences/")
        assert started.started.model.name == (name if name != "models/mm" else version)
        assert started.started.model.base_digest == world.base_digest
        assert finished.finished.reason == pb.FINISH_REASON_LENGTH
        assert finished.finished.usage.output_tokens == 8
        assert finished.finished.duration.ToTimedelta() >= finished.finished.time_to_first_token.ToTimedelta()
        event = next(e.message for e in served.recorded if e.key == started.started.inference)
        assert event.output == "".join(delta.delta.text for delta in deltas)
        assert (event.principal, event.request_id) == ("tester", "r1")
    texts = {name: "".join(p.delta.text for p in all_) for name, all_ in parts.items()}
    assert texts["models/mm"] == texts[version] != texts["baseModels/tiny"]

    served.tell(version, BLOCKED, world.base_digest, world.adapters[0])
    eventually(lambda: version not in names(served))
    blocked = refusal(served.ask(version))
    assert isinstance(blocked, FailedPrecondition)
    assert blocked.reason == "MODEL_VERSION_BLOCKED"


def test_a_version_without_its_adapter_is_unavailable_and_a_foreign_base_refused(
    served: Running, world: Any
) -> None:
    served.tell("models/lost/versions/1", PROMOTED, world.base_digest, "sha256:" + "0" * 64)
    served.tell("models/lost/versions/2", PROMOTED, "sha256:" + "0" * 64, world.adapters[0])
    eventually(lambda: "models/lost/versions/1" in names(served))
    assert refusal(served.ask("models/lost")).code is grpc.StatusCode.UNAVAILABLE
    eventually(lambda: refusal(served.ask("models/lost/versions/2")).reason == "OTHER_BASE_MODEL")


def test_a_cancelled_call_leaves_nothing_running_and_is_recorded(served: Running) -> None:
    call = served.ask("baseModels/tiny", max_output_tokens=900)
    assert next(call).WhichOneof("part") == "started"
    assert next(call).delta.text
    call.cancel()
    eventually(lambda: len(served.recorded) == 1)
    message = served.recorded[0].message
    assert message.reason == pb.FINISH_REASON_CANCELLED
    assert 0 < message.usage.output_tokens < 900


def test_a_call_without_deadline_is_answered(served: Running) -> None:
    *_, finished = served.stub.Generate(pb.GenerateRequest(model="baseModels/tiny", prompt="a"))
    assert finished.finished.usage.output_tokens <= 64  # what is answered when no maximum is asked for


def test_a_deadline_ends_the_answer(served: Running) -> None:
    timeout_s = 0.3
    while not begun_at_its_deadline(served.ask("baseModels/tiny", timeout=timeout_s, max_output_tokens=1000)):
        timeout_s *= 2
    eventually(lambda: served.recorded, "the record of the answer")
    assert {event.message.reason for event in served.recorded} == {pb.FINISH_REASON_CANCELLED}


def begun_at_its_deadline(call: Any) -> bool:
    """Returns whether there was text when the deadline ended the call; on a slow machine there may be none."""
    parts = []
    with pytest.raises(grpc.RpcError) as ended:
        parts.extend(part.WhichOneof("part") for part in call)
    assert from_rpc_error(ended.value).code is grpc.StatusCode.DEADLINE_EXCEEDED
    return "delta" in parts


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.GenerateRequest(model="nothing", prompt="a"), "model"),
        (pb.GenerateRequest(model="baseModels/tiny"), "prompt"),
        (pb.GenerateRequest(model="baseModels/tiny", prompt="a " * 3000), "prompt"),
        (
            pb.GenerateRequest(model="baseModels/tiny", prompt="a", sampling=pb.SamplingParameters(top_p=2)),
            "sampling.top_p",
        ),
    ],
    ids=["model", "no prompt", "long prompt", "top_p"],
)
def test_a_wrong_field_is_named(served: Running, request_: pb.GenerateRequest, field: str) -> None:
    error = refusal(served.stub.Generate(request_))
    assert isinstance(error, InvalidArgument)
    assert error.violations[0].field == field


def test_a_caller_without_the_permission_is_refused(served: Running) -> None:
    request = pb.GenerateRequest(model="baseModels/tiny", prompt="a")
    auditor = served.stub_for(token(served.service, ["auditor"], "eve"))
    assert isinstance(refusal(auditor.Generate(request)), PermissionDenied)
    assert refusal(served.stub_for(None).Generate(request)).code is grpc.StatusCode.UNAUTHENTICATED


def test_a_write_ahead_log_in_use_prevents_the_start(tmp_path: Path) -> None:
    settings = InferenceSettings(state_dir=tmp_path, auth_mode="development", base_model="tiny")
    first = Wal(settings.wal_folder)
    with pytest.raises(StartupError, match="write-ahead log"):
        build(settings)
    first.close()


def test_pages_of_served_models_join_to_all(served: Running, world: Any) -> None:
    for number in (1, 2, 3):
        served.tell(f"models/paged/versions/{number}", PROMOTED, world.base_digest, world.adapters[0])
    eventually(lambda: "models/paged/versions/3" in names(served))
    found, page_token = [], ""
    while True:
        page = served.stub.ListServedModels(pb.ListServedModelsRequest(page_size=3, page_token=page_token))
        found += [model.name for model in page.models]
        if not (page_token := page.next_page_token):
            break
    assert found == names(served)


def test_both_apis_give_the_same_answer(served: Running) -> None:
    text = "".join(part.delta.text for part in served.ask("baseModels/tiny"))
    body = {"model": "baseModels/tiny", "prompt": "The actor", "max_tokens": 8, "temperature": 0}
    reply = httpx.post(
        f"{served.http}/v1/completions", json=body, headers={"authorization": f"Bearer {served.token}"}
    )
    assert reply.json()["choices"][0]["text"] == text
    assert {event.key for event in served.recorded} >= {reply.headers["x-openledger-inference-id"]}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_an_http_client_that_leaves_stops_and_leaves_nothing_running(served: Running, stream: bool) -> None:
    # Greedy: a sampled answer of the tiny model may end by itself at its first token.
    body = {
        "model": "baseModels/tiny",
        "prompt": "The actor",
        "max_tokens": 900,
        "temperature": 0,
        "stream": stream,
    }
    headers = {"authorization": f"Bearer {served.token}", "content-type": "application/json"}
    with closing(
        http.client.HTTPConnection(served.http.removeprefix("http://"), timeout=LONGEST_S)
    ) as client:
        client.request("POST", "/v1/completions", json.dumps(body), headers)
        if stream:
            assert client.getresponse().readline()
        else:
            eventually(lambda: running_answers() > 0, "the answer to begin")
    eventually(lambda: len(served.recorded) == 1)
    assert served.recorded[0].message.reason == pb.FINISH_REASON_CANCELLED
