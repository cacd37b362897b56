"""The objects of a model version, for whoever takes the model away: base, adapter and training manifest, by their manifests."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from enum import StrEnum
from typing import BinaryIO

from sqlalchemy import Engine

from identity.names import ModelVersionName
from modelkit import adapter, base_model
from servicekit.auth import Principal
from servicekit.database import reading
from servicekit.errors import InvalidArgument, NotFound
from servicekit.objects import ObjectStore
from trainer.access import check_owner
from trainer.entities import Version
from trainer.versions import found_version

CHUNK_BYTES = 256 << 10
"""Far below gRPC's limit of a message, and large enough that the overhead of a message does not matter."""


class Part(StrEnum):
    """What a version is made of."""

    BASE_MODEL = "base model"
    ADAPTER = "adapter"
    TRAINING_MANIFEST = "training manifest"


class ModelFiles:
    """Objects of model versions, over one database and one object store."""

    def __init__(self, engine: Engine, objects: ObjectStore) -> None:
        self._engine = engine
        self._objects = objects

    def open(
        self, principal: Principal, name: ModelVersionName, part: Part, file: str, *, offset: int = 0
    ) -> tuple[str, BinaryIO]:
        """Returns the digest of a part's manifest, or of a file that it names, and the object as a file, open at `offset`.

        Raises NotFound for the version, the object, or a file that the manifest does not name; PermissionDenied for the model of
        another; InvalidArgument for an offset behind the object's end.
        """
        with reading(self._engine) as session:
            version = found_version(session, name)
            check_owner(session, principal, name.model, "trainer.models.export")
        digest = self._digest(version, part, file)
        opened = self._objects.open(digest)
        size = os.fstat(opened.fileno()).st_size
        if offset > size:
            opened.close()
            raise InvalidArgument("offset", "offset", f"must be at most {size}, the object's bytes", offset)
        opened.seek(offset)
        return digest, opened

    def _digest(self, version: Version, part: Part, file: str) -> str:
        digest = {
            Part.BASE_MODEL: version.run.base_digest,
            Part.ADAPTER: version.adapter_digest,
            Part.TRAINING_MANIFEST: version.training_manifest_digest,
        }[part]
        if not file:
            return digest
        files = self._files(digest, part)
        if file not in files:
            raise NotFound("file", f"{file} of the {part} of {version.name}")
        return files[file]

    def _files(self, digest: str, part: Part) -> dict[str, str]:
        if part is Part.BASE_MODEL:
            return dict(base_model.read_manifest(digest, self._objects).files)
        return adapter.manifest(digest, self._objects)[1] if part is Part.ADAPTER else {}


async def pieces(file: BinaryIO) -> AsyncIterator[tuple[int, int, bytes]]:
    """Yields the object's size, an offset and the bytes there, from the file's position on; at least once. Closes the file."""
    with file:
        size, offset = os.fstat(file.fileno()).st_size, file.tell()
        while True:
            data = await asyncio.to_thread(file.read, CHUNK_BYTES)
            yield size, offset, data
            offset += len(data)
            if not data or offset >= size:
                return
