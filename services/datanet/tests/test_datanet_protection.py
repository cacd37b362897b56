"""A Datanet is protected from evaluation items unless its owner says that it is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from openledger.common.v1.object_pb2 import ObjectChunk
from openledger.datanet.v1 import datanet_pb2 as pb

from datanet.definition import QualityPolicy
from openledger_client import sealing
from openledger_client.errors import InvalidArgument

pytestmark = pytest.mark.server

ITEM = "The report says " + " ".join(f"word{n}" for n in range(20))
REPORT = "The group used PowerShell to download more tools from its server."


def make(world: Any, id_: str, definition: pb.Datanet, policy: pb.QualityPolicy) -> Any:
    content = pb.Datanet()
    content.CopyFrom(definition)
    content.policy.CopyFrom(policy)
    owner = world.client("owner", "curator")
    made = owner.CreateDatanet(pb.CreateDatanetRequest(datanet_id=id_, datanet=content))
    alice = pb.Contributor(principal="alice", consent_licence=content.licence)
    owner.RegisterContributor(
        pb.RegisterContributorRequest(parent=made.name, contributor_id="alice", contributor=alice)
    )
    return made


def rules(world: Any, name: str, records: list[bytes]) -> list[str]:
    requests = [
        pb.ContributeRequest(contributor=f"{name}/contributors/alice", content=each) for each in records
    ]
    return [each.rule for each in world.client("alice", "contributor").Contribute(iter(requests))]


def policy_in_manifest(world: Any, name: str) -> dict[str, Any]:
    owner = world.client("owner", "curator")
    snapshot = sealing.seal(owner, pb.SealSnapshotRequest(parent=name))
    request = pb.DownloadSnapshotRequest(name=snapshot.name, part=pb.SNAPSHOT_PART_MANIFEST)
    chunks: list[ObjectChunk] = list(owner.DownloadSnapshot(request))
    found: dict[str, Any] = json.loads(b"".join(chunk.data for chunk in chunks))["policy"]
    return found


@pytest.fixture
def content() -> pb.Datanet:
    return pb.Datanet(
        licence="CC-BY-4.0",
        schema=pb.RecordSchema(
            fields=[
                pb.RecordSchema.Field(name="text", required=True),
                pb.RecordSchema.Field(name="tactic", required=True),
            ],
            prompt_template="Report: {text}",
            completion_template=" {tactic}",
        ),
    )


def test_a_policy_that_says_nothing_is_checked_for_the_items_of_the_platform(
    gated_world: Any, content: pb.Datanet, encode: Callable[..., bytes]
) -> None:
    made = make(gated_world, "silent", content, pb.QualityPolicy())
    assert made.policy.contamination_check == pb.CONTAMINATION_CHECK_ON
    assert made.policy.gate_items_digest.startswith("sha256:")
    assert rules(gated_world, made.name, [encode(ITEM), encode(REPORT)]) == ["contamination", ""]
    policy = policy_in_manifest(gated_world, made.name)
    assert policy["contamination_check"] is True
    assert policy["gate_items_digest"] == made.policy.gate_items_digest


def test_turning_it_off_is_asked_for_and_shown_in_the_view_and_the_manifest(
    gated_world: Any, content: pb.Datanet, encode: Callable[..., bytes]
) -> None:
    off = pb.QualityPolicy(contamination_check=pb.CONTAMINATION_CHECK_OFF)
    made = make(gated_world, "open", content, off)
    assert made.policy.contamination_check == pb.CONTAMINATION_CHECK_OFF
    assert made.policy.gate_items_digest == ""
    assert rules(gated_world, made.name, [encode(ITEM)]) == [""]
    assert policy_in_manifest(gated_world, made.name)["contamination_check"] is False


def test_a_service_without_items_refuses_a_policy_that_says_nothing(
    world: Any, content: pb.Datanet, refusal: Callable[..., Any]
) -> None:
    owner = world.client("owner", "curator")
    refused = refusal(owner.CreateDatanet, pb.CreateDatanetRequest(datanet_id="unsaid", datanet=content))
    assert isinstance(refused, InvalidArgument)
    assert refused.metadata["field"] == "policy.gate_items_digest"
    assert "CONTAMINATION_CHECK_OFF" in str(refused)


def test_items_that_are_not_to_be_checked_are_a_contradiction(
    gated_world: Any, content: pb.Datanet, refusal: Callable[..., Any]
) -> None:
    content.policy.gate_items_digest = "sha256:" + "0" * 64
    content.policy.contamination_check = pb.CONTAMINATION_CHECK_OFF
    owner = gated_world.client("owner", "curator")
    refused = refusal(owner.CreateDatanet, pb.CreateDatanetRequest(datanet_id="both", datanet=content))
    assert isinstance(refused, InvalidArgument)


@pytest.mark.parametrize("digest", ["", "sha256:" + "0" * 64])
def test_a_datanet_of_the_first_release_is_checked_as_before(digest: str) -> None:
    stored = QualityPolicy(gate_items_digest=digest).to_json()
    del stored["contamination_check"]
    stored["personal_data_entities"] = ["EMAIL_ADDRESS"]
    assert QualityPolicy.from_json(stored).contamination_check is bool(digest)
