"""Downloads of objects by digest. Bytes without the right digest are never returned or stored under the object's name."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

from openledger_client.errors import DataLoss, OpenLedgerError
from openledger_client.resumption import Patience, Resumption

if TYPE_CHECKING:
    import grpc
    from openledger.common.v1.object_pb2 import ObjectChunk


class Download:
    """One object, streamed by a Download method, e.g. `client.datanet.DownloadSnapshot`.

    When the connection is lost, the object is requested again: from where it was cut if the request has a field `offset`,
    else from its beginning, and the bytes that have arrived are skipped.
    """

    def __init__(
        self,
        call: grpc.UnaryStreamMultiCallable[Any, ObjectChunk],
        request: Any,
        *,
        digest: str = "",
        patience: Patience | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Sends nothing yet.

        Args:
            call: a method of a stub that streams `ObjectChunk`.
            request: its request.
            digest: the expected digest, `sha256:...`; "" accepts the digest that the server names.
            patience: how long the service may stay unreachable.
            sleep: waits between attempts.
        """
        self._call = call
        self._request = request
        self._patience = patience or Patience()
        self._sleep = sleep
        self.digest = digest
        """Digest of the object; known at the latest after the first chunk."""
        self.size = 0
        """Bytes of the whole object; known after the first chunk."""
        self.received = 0
        """Bytes that have arrived."""

    def chunks(self) -> Iterator[bytes]:
        """Yields the object's bytes in order. They have the digest only if the iterator ends normally.

        Raises:
            DataLoss: the bytes do not have the digest, or a chunk is out of place.
            OpenLedgerError: any error of the service.
        """
        resumption = Resumption(self._patience)
        hashed = hashlib.sha256()
        self.received = 0
        while True:
            stream = self._call(self._request_of_the_rest())
            try:
                for chunk in stream:
                    if fresh := self._fresh(chunk):
                        resumption.progressed()
                        hashed.update(fresh)
                        self.received += len(fresh)
                        yield fresh
                break
            except OpenLedgerError as error:
                wait_s = resumption.wait_s(error)
            finally:
                stream.cancel()
            self._sleep(wait_s)
        found = f"sha256:{hashed.hexdigest()}"
        if found != self.digest:
            raise DataLoss(
                f"the downloaded object has the digest {found}, not {self.digest or 'any: the stream was empty'}",
                reason="CORRUPT_OBJECT",
                metadata={"digest": self.digest, "found": found},
            )

    def read(self) -> bytes:
        """Returns the whole object. Raises like `chunks`."""
        return b"".join(self.chunks())

    def save(self, path: Path) -> Path:
        """Writes the object to `path`, which appears only when the digest is right, and returns it. Raises like `chunks`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            partial = Path(file.name)
            try:
                for chunk in self.chunks():
                    file.write(chunk)
            except BaseException:
                partial.unlink()
                raise
        return partial.replace(path)

    def _request_of_the_rest(self) -> Any:
        if not self.received or "offset" not in self._request.DESCRIPTOR.fields_by_name:
            return self._request
        rest = type(self._request)()
        rest.CopyFrom(self._request)
        rest.offset = self.received
        return rest

    def _fresh(self, chunk: ObjectChunk) -> bytes:
        """Returns the bytes of a chunk that have not arrived before."""
        self.digest = self.digest or chunk.digest
        self.size = chunk.size
        if chunk.digest != self.digest:
            raise DataLoss(
                f"the server sends the object {chunk.digest} instead of {self.digest}",
                reason="OTHER_OBJECT",
                metadata={"digest": self.digest, "found": chunk.digest},
            )
        if chunk.offset > self.received:
            raise DataLoss(
                f"bytes {self.received} to {chunk.offset} of {self.digest} are missing",
                reason="MISSING_BYTES",
                metadata={"digest": self.digest},
            )
        return chunk.data[self.received - chunk.offset :]
