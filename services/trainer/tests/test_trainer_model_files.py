"""A version's objects go to its model's owner, from any offset, and to nobody else."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from openledger.trainer.v1 import trainer_pb2 as pb

from identity.digest import canonical_json, sha256_bytes
from openledger_client.downloads import Download
from openledger_client.errors import (
    InvalidArgument,
    NotFound,
    OpenLedgerError,
    PermissionDenied,
    from_rpc_error,
)
from trainer.model_files import CHUNK_BYTES

pytestmark = pytest.mark.slow

MANIFEST, ADAPTER = pb.MODEL_VERSION_PART_TRAINING_MANIFEST, pb.MODEL_VERSION_PART_ADAPTER


def error(stub: Any, request: pb.DownloadModelVersionRequest) -> OpenLedgerError:
    with pytest.raises(grpc.RpcError) as refused:
        list(stub.DownloadModelVersion(request))
    return from_rpc_error(refused.value)


def test_the_owner_downloads_a_version_and_nobody_else_does(trainer: Any) -> None:
    trainer.seal()
    weights = bytes(range(256)) * (2 * CHUNK_BYTES // 256 + 1)
    files = {"adapter_config.json": trainer.service.objects.put_bytes(b"{}"),
             "adapter_model.safetensors": trainer.service.objects.put_bytes(weights)}  # fmt: skip
    manifest = {"kind": "adapter", "base": "sha256:" + "0" * 64, "files": files}
    adapter = canonical_json(manifest)
    version = trainer.trained(adapter=adapter)
    stub = trainer.stub()

    def request(part: Any, file: str = "", offset: int = 0) -> pb.DownloadModelVersionRequest:
        return pb.DownloadModelVersionRequest(name=version.name, part=part, file=file, offset=offset)

    assert (
        Download(stub.DownloadModelVersion, request(ADAPTER), digest=version.adapter_digest).read() == adapter
    )
    found = Download(stub.DownloadModelVersion, request(ADAPTER, "adapter_model.safetensors"))
    assert (found.read(), found.digest) == (weights, sha256_bytes(weights))
    training = Download(stub.DownloadModelVersion, request(MANIFEST), digest=version.training_manifest_digest)
    assert training.read().startswith(b"manifest of")

    rest = list(stub.DownloadModelVersion(request(ADAPTER, "adapter_model.safetensors", offset=100)))
    assert b"".join(chunk.data for chunk in rest) == weights[100:]
    assert (rest[0].offset, rest[0].size) == (100, len(weights))
    end = list(stub.DownloadModelVersion(request(ADAPTER, "adapter_model.safetensors", offset=len(weights))))
    assert [chunk.data for chunk in end] == [b""]

    beyond = error(stub, request(ADAPTER, "adapter_config.json", offset=3))
    assert isinstance(beyond, InvalidArgument)
    assert "must be at most 2" in str(beyond)
    for part, file in ((ADAPTER, "config.json"), (MANIFEST, "records")):
        assert isinstance(error(stub, request(part, file)), NotFound)
    for name in ("../adapter_config.json", "/etc/passwd", "a b"):
        assert isinstance(error(stub, request(ADAPTER, name)), InvalidArgument)
    for who, role in (("eve", "builder"), ("bob", "approver"), ("ann", "auditor")):
        assert isinstance(error(trainer.stub(who, role), request(ADAPTER)), PermissionDenied)
    assert list(trainer.stub("root", "admin").DownloadModelVersion(request(ADAPTER)))
