"""No log line and no span holds a token, a key, a prompt or personal data: canaries are sent through every API, whole and
broken, while all services log at DEBUG; then everything they wrote is searched for them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import httpx
import pytest
from openledger.attribution.v1 import attribution_pb2
from openledger.attribution.v1.attribution_pb2_grpc import AttributionServiceStub
from openledger.datanet.v1 import datanet_pb2
from openledger.datanet.v1.datanet_pb2_grpc import DatanetServiceStub
from openledger.inference.v1 import inference_pb2
from openledger.inference.v1.inference_pb2_grpc import InferenceServiceStub
from openledger.trainer.v1 import trainer_pb2
from openledger.trainer.v1.trainer_pb2_grpc import TrainerServiceStub

from openledger_testing.all_services import DATANET, LICENCE, AllServices
from servicekit.testing.services import recorded_trace

pytestmark = pytest.mark.server

ANVILS_KEY = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
"""What the relay signs with on this development chain."""


@pytest.fixture(scope="module")
def canaries(platform: AllServices) -> dict[str, str]:
    """What was sent, by what it is. Each is unlike anything else."""

    def canary(kind: str) -> str:
        return f"{kind}{uuid4().hex}"

    sent = {
        "e-mail": f"{canary('mail')}@example.org",
        "prompt": canary("prompt"),
        "stop string": canary("stop"),
        "header": canary("header"),
        "request id": canary("request"),
        "description": canary("text"),
        "principal": f"{canary('person')}@example.org",
        "metadata": canary("metadata"),
        "path": canary("path"),
        "malformed": canary("malformed"),
        "reason": canary("reason"),
        "query": canary("query"),
    }
    with recorded_trace():
        for send in (_datanet, _inference, _openai_api, _trainer, _attribution):
            for _ in send(platform, sent):
                pass
    return sent


def _refused(call: Callable[[], Any]) -> None:
    with suppress(grpc.RpcError):
        answer = call()
        if isinstance(answer, grpc.Call):
            list(answer)


def _datanet(platform: AllServices, sent: dict[str, str]) -> Iterator[None]:
    owner = platform.token("olga", "curator")
    record = {"text": f"Write to {sent['e-mail']} about the processes that the group lists on this host."}
    metadata = (
        ("x-debug", sent["metadata"]),
        ("authorization", f"Bearer {platform.token('alice', 'contributor')}"),
    )
    contributor = f"{DATANET}/contributors/alice"
    messages = [
        datanet_pb2.ContributeRequest(contributor=contributor, content=json.dumps(record).encode()),
        datanet_pb2.ContributeRequest(content=sent["malformed"].encode()),
    ]
    with platform.channel("datanet") as over:
        answers = list(DatanetServiceStub(over).Contribute(iter(messages), metadata=metadata, timeout=60))
        assert [answer.rule for answer in answers] == ["personal_data", "not_json"]
        yield
        raw = over.unary_unary("/openledger.datanet.v1.DatanetService/CreateDatanet")
        for token in (owner, sent["malformed"], ""):
            headers = (("authorization", f"Bearer {token}"),)
            _refused(lambda h=headers: raw(sent["malformed"].encode(), metadata=h, timeout=60))
        yield
    with platform.channel("datanet", owner) as over:
        stub: Any = DatanetServiceStub(over)
        name = f"datanets/{sent['path']}"
        _refused(lambda: stub.GetDatanet(datanet_pb2.GetDatanetRequest(name=name), timeout=60))
        _refused(lambda: stub.GetDatanet(datanet_pb2.GetDatanetRequest(name=f"{name}/../{name}"), timeout=60))
        content = datanet_pb2.Datanet(description=sent["description"], licence=LICENCE)
        request = datanet_pb2.CreateDatanetRequest(
            datanet_id="canaries", datanet=content, request_id=sent["request id"][:64]
        )
        _refused(lambda: stub.CreateDatanet(request, timeout=60))
        person = datanet_pb2.Contributor(principal=sent["principal"], display_name=sent["e-mail"])
        _refused(
            lambda: stub.RegisterContributor(
                datanet_pb2.RegisterContributorRequest(
                    parent=DATANET, contributor_id="person", contributor=person
                ),
                timeout=60,
            )
        )
        review = datanet_pb2.ReviewRecordRequest(
            name=f"{DATANET}/records/{'0' * 64}", decision=3, reason=sent["reason"]
        )
        _refused(lambda: stub.ReviewRecord(review, timeout=60))
    yield
    stranger = platform.token(
        sent["principal"], "curator", "contributor"
    )  # authenticated, but the owner of nothing
    with platform.channel("datanet", stranger) as over:
        stub = DatanetServiceStub(over)
        _refused(
            lambda: stub.ListRecords(
                datanet_pb2.ListRecordsRequest(parent=DATANET, page_token=sent["query"]), timeout=60
            )
        )
        _refused(lambda: stub.Contribute(iter(messages), timeout=60))
        _refused(lambda: stub.SealSnapshot(datanet_pb2.SealSnapshotRequest(parent=DATANET), timeout=60))
    yield


def _inference(platform: AllServices, sent: dict[str, str]) -> Iterator[None]:
    with platform.channel("inference", platform.token(sent["principal"], "user")) as over:
        stub: Any = InferenceServiceStub(over)
        for model, tokens in (("baseModels/tiny", 4), ("models/none", 4), ("baseModels/tiny", 4096)):
            sampling = inference_pb2.SamplingParameters(max_output_tokens=tokens, stop=[sent["stop string"]])
            request = inference_pb2.GenerateRequest(
                model=model, prompt=f"{sent['prompt']} {sent['e-mail']}", sampling=sampling
            )
            _refused(lambda r=request: stub.Generate(r, timeout=60))
        request = inference_pb2.GenerateRequest(model=sent["path"], prompt=sent["prompt"])
        _refused(lambda: stub.Generate(request, timeout=60))
    yield


def _openai_api(platform: AllServices, sent: dict[str, str]) -> Iterator[None]:
    url = f"http://{platform.services['inference'].http}"
    token = platform.token(sent["principal"], "user")
    with httpx.Client(base_url=url, timeout=60) as client:
        good = {
            "authorization": f"Bearer {token}",
            "x-request-id": sent["header"],
            "user-agent": sent["header"],
        }
        ask = {"model": "baseModels/tiny", "prompt": sent["prompt"], "max_tokens": 2}
        chat = {"model": "baseModels/tiny", "messages": [{"role": "user", "content": sent["prompt"]}]}
        bodies = (
            ask,
            {**ask, "stream": True},
            {**ask, sent["malformed"]: 1},
            {**ask, "metadata": {sent["malformed"]: 1}},
            chat,
            [sent["prompt"]],
        )
        for headers in (
            good,
            {"authorization": f"Bearer {sent['malformed']}"},
            {"authorization": sent["header"]},
        ):
            for body in bodies:
                for path in ("completions", "chat/completions"):
                    client.post(f"/v1/{path}", json=body, headers=headers)
                    yield
        client.post("/v1/completions", content=f'{{"prompt": "{sent["prompt"]}'.encode(), headers=good)
        client.get(f"/v1/models/{sent['path']}?key={sent['query']}", headers=good)
        client.get(f"/{sent['path']}?key={sent['query']}", headers=good)
    with httpx.Client(base_url=url, timeout=60) as client, suppress(httpx.HTTPError):  # not HTTP at all
        client.request(sent["malformed"].upper(), "/v1/models", headers={"x": sent["header"]})
    yield


def _trainer(platform: AllServices, sent: dict[str, str]) -> Iterator[None]:
    with platform.channel("trainer", platform.token(sent["principal"], "builder", "approver")) as over:
        stub: Any = TrainerServiceStub(over)
        intent = trainer_pb2.Intent(purpose=sent["description"])
        request = trainer_pb2.CreateTrainingRunRequest(
            model="models/canary",
            base_model="baseModels/tiny",
            snapshots=[trainer_pb2.WeightedSnapshot(snapshot=f"{DATANET}/snapshots/77")],
            spec=trainer_pb2.TrainingSpec(learning_rate=7e7),
            intent=intent,
        )
        _refused(lambda: stub.CreateTrainingRun(request, timeout=60))
        yield
        override = trainer_pb2.CreatePromotionOverrideRequest(
            model_version="models/canary/versions/1", reason=f"because {sent['reason']}"
        )
        _refused(lambda: stub.CreatePromotionOverride(override, timeout=60))
    yield


def _attribution(platform: AllServices, sent: dict[str, str]) -> Iterator[None]:
    with platform.channel("attribution", platform.token(sent["principal"], "user")) as over:
        stub: Any = AttributionServiceStub(over)
        request = attribution_pb2.ListAttributionsRequest(
            model_version=sent["path"], page_token=sent["query"]
        )
        _refused(lambda: stub.ListAttributions(request, timeout=60))
    yield


def written(platform: AllServices) -> Iterator[tuple[str, str]]:
    """Everything that the services wrote for operators, and where."""
    for name, service in platform.services.items():
        for line in service.log.read_text().splitlines():
            yield f"log of {name}", line
    for span in platform.collector.spans:
        yield f"span of {span.service}", f"{span.name} {json.dumps(span.attributes, default=str)}"


def test_no_canary_is_in_any_log_or_span(platform: AllServices, canaries: dict[str, str]) -> None:
    service = "openledger-inference"
    assert platform.collector.wait(lambda spans: any(span.service == service for span in spans))
    found = {
        kind: f"{where}: {text[:600]}"
        for where, text in written(platform)
        for kind, canary in canaries.items()
        if canary in text
    }
    assert not found, json.dumps(found, indent=1)


def test_no_token_and_no_private_key_is_in_any_log_or_span(
    platform: AllServices, canaries: dict[str, str]
) -> None:
    pem = (platform.folder / "issuer" / "private.pem").read_text().splitlines()[1]
    a_tokens_beginning = platform.token("anyone", "user")[:16]
    secrets = {
        "issuer's key": pem,
        "chain key": ANVILS_KEY,
        "token": a_tokens_beginning,
        "bearer": "Bearer ey",
    }
    found = {
        kind: f"{where}: {text[:600]}"
        for where, text in written(platform)
        for kind, secret in secrets.items()
        if secret.lower() in text.lower()
    }
    assert not found, json.dumps(found, indent=1)


def test_the_search_would_find_what_is_there(
    platform: AllServices, canaries: dict[str, str], tmp_path: Path
) -> None:
    """Each service logs its refusals and its start: a search in empty files would prove nothing."""
    lines = [text for where, text in written(platform) if where.startswith("log")]
    for service in platform.services:
        assert any(f'"service": "{service}"' in line for line in lines)
    assert sum('"call refused"' in line for line in lines) >= 10
    assert any('"level": "DEBUG"' in line for line in lines)
    assert platform.collector.wait(lambda spans: len({span.service for span in spans}) >= 4)
