"""The objects of a model version, downloaded, each checked against the digest that the version or a manifest names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openledger.trainer.v1 import trainer_pb2 as pb

from identity.digest import sha256_bytes
from openledger_client import Client
from openledger_client.downloads import Download
from openledger_client.errors import DataLoss

BASE, ADAPTER = pb.MODEL_VERSION_PART_BASE_MODEL, pb.MODEL_VERSION_PART_ADAPTER
TRAINING_MANIFEST = pb.MODEL_VERSION_PART_TRAINING_MANIFEST
_MAX_MANIFEST_BYTES = 64 << 20
"""Of a training manifest with half a million records; those of bases and adapters have one kilobyte."""
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")

Report = Callable[[str, int, int], None]
"""Takes a file's name, the bytes of it that have arrived, and its size."""


@dataclass(frozen=True)
class Manifest:
    """A manifest, and what it says."""

    data: bytes
    content: Mapping[str, Any]

    @property
    def files(self) -> Mapping[str, str]:
        """Digests by file name."""
        files: Mapping[str, str] = self.content["files"]
        return files


class ModelFiles:
    """The objects of one version, from a trainer."""

    def __init__(self, client: Client, version: pb.ModelVersion, report: Report) -> None:
        self._call = client.trainer.DownloadModelVersion
        self._version = version
        self._report = report

    def base(self) -> Manifest:
        """Returns the base's manifest: name, licence, source, files. Raises DataLoss for anything else."""
        return self._manifest(BASE, self._version.base_digest)

    def adapter(self) -> Manifest:
        """Returns the adapter's manifest: base and files. Raises DataLoss for anything else, or an adapter of another base."""
        found = self._manifest(ADAPTER, self._version.adapter_digest)
        if found.content.get("base") != self._version.base_digest:
            raise _unfit(
                f"the adapter is of base {found.content.get('base')}, not {self._version.base_digest}"
            )
        return found

    def training_manifest(self) -> bytes:
        """Returns the training manifest: every record that was trained on, by digest, and how often."""
        return self._small(TRAINING_MANIFEST, self._version.training_manifest_digest)

    def save(self, part: pb.ModelVersionPart.ValueType, manifest: Manifest, folder: Path) -> None:
        """Writes the files of a part into `folder`. Raises DataLoss for bytes without the manifest's digest."""
        for name, digest in manifest.files.items():
            download = Download(self._call, self._request(part, name), digest=digest)
            with (folder / name).open("xb") as file:
                for chunk in download.chunks():
                    file.write(chunk)
                    self._report(name, download.received, download.size)

    def _request(self, part: pb.ModelVersionPart.ValueType, file: str = "") -> pb.DownloadModelVersionRequest:
        return pb.DownloadModelVersionRequest(name=self._version.name, part=part, file=file)

    def _small(self, part: pb.ModelVersionPart.ValueType, digest: str) -> bytes:
        download, data = Download(self._call, self._request(part), digest=digest), bytearray()
        for chunk in download.chunks():
            data += chunk
            if download.size > _MAX_MANIFEST_BYTES:
                raise _unfit(f"a manifest has {download.size} bytes; at most {_MAX_MANIFEST_BYTES} are read")
        return bytes(data)

    def _manifest(self, part: pb.ModelVersionPart.ValueType, digest: str) -> Manifest:
        """The file names become paths: a name that is no plain one is refused, whoever wrote it."""
        data = self._small(part, digest)
        try:
            content: Any = json.loads(data)
            plain = all(
                _FILE.fullmatch(name) and isinstance(file, str) for name, file in content["files"].items()
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            plain = False
        if not plain:
            raise _unfit(f"{sha256_bytes(data)} is not a manifest with plain file names")
        return Manifest(data, content)


def _unfit(message: str) -> DataLoss:
    return DataLoss(message, reason="UNFIT_OBJECT")
