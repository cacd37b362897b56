"""Whole services on one store in S3: what each needs stays, whatever else is collected."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from openledger.datanet.v1 import datanet_pb2 as pb
from openledger.datanet.v1.datanet_pb2_grpc import DatanetServiceStub

from openledger_client import sealing
from openledger_client.channels import sync_channel
from servicekit.auth import DevelopmentIssuer
from servicekit.objects import ObjectStore
from servicekit.objects.references import read_all
from servicekit.testing.s3 import S3Server, s3_server

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@contextmanager
def datanet(environment: dict[str, str]) -> Iterator[str]:
    """A datanet process; gives its gRPC address, and ends it as an operator does."""
    process = subprocess.Popen(
        [sys.executable, "-m", "datanet"], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["grpc"]
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def openledger(environment: dict[str, str], *arguments: str) -> Any:
    command = [sys.executable, "-m", "openledger_cli", "--json", "objects", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_service_on_s3_keeps_what_its_database_refers_to(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = s3.new_bucket()
    settings = {
        **s3.environment,
        "OPENLEDGER_OBJECT_STORE": url,
        "OPENLEDGER_STATE_DIR": str(tmp_path / "state"),
        "OPENLEDGER_AUTH_MODE": "development",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    environment = dict(os.environ)
    with datanet(environment) as address:
        token = DevelopmentIssuer(tmp_path / "state").mint("owner", ["curator", "contributor"])
        channel = sync_channel(address, token)
        stub: Any = DatanetServiceStub(channel)
        snapshot = sealed(stub)
        stub.DownloadSnapshot(pb.DownloadSnapshotRequest(name=snapshot.name))
        channel.close()
    store = ObjectStore(url, cache=tmp_path / "elsewhere")
    assert store.exists(snapshot.records_digest)
    assert store.exists(snapshot.manifest_digest)
    (published,) = read_all(store)
    assert {snapshot.records_digest, snapshot.manifest_digest} <= published.digests
    found = openledger(environment, "gc", "--dry-run", *("--service", "datanet"), *("--grace", "2h"))
    assert (found["needed"], found["garbage"], found["missing"]) == (2, [], [])


def sealed(stub: Any) -> pb.Snapshot:
    """A snapshot of one record."""
    schema = pb.RecordSchema(
        fields=[pb.RecordSchema.Field(name="text", required=True)],
        prompt_template="Say {text}",
        completion_template=" {text}",
    )
    made = stub.CreateDatanet(
        pb.CreateDatanetRequest(
            datanet_id="notes",
            datanet=pb.Datanet(
                display_name="Notes",
                licence="CC-BY-4.0",
                schema=schema,
                policy=pb.QualityPolicy(contamination_check=pb.CONTAMINATION_CHECK_OFF),
            ),
            request_id="create",
        )
    )
    contributor = stub.RegisterContributor(
        pb.RegisterContributorRequest(
            parent=made.name,
            contributor_id="owner",
            contributor=pb.Contributor(principal="owner", display_name="Owner", consent_licence="CC-BY-4.0"),
        )
    )
    content = json.dumps({"text": "The group lists processes before it moves on."}).encode()
    request = pb.ContributeRequest(contributor=contributor.name, sequence=1, content=content)
    assert [answer.sequence for answer in stub.Contribute(iter([request]))] == [1]
    return sealing.seal(stub, pb.SealSnapshotRequest(parent=made.name))
