"""Large objects, named by the SHA-256 of their bytes, never changed, and verified at each read.

A store is a local folder, optionally with a bucket. With a bucket, the folder is its cache: an object is in both before `put_*`
returns, and a read uses the copy in the folder or fetches it once. The layout of both is ``sha256/<2 hex>/<62 hex>``.

Garbage collection removes objects without references (`servicekit.objects.collection`). A program that puts an object must
refer to it within an hour, in a database or in another object with a reference. Putting an existing object again renews its
age.
"""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from servicekit import crash
from servicekit.database.columns import utc_now
from servicekit.errors import CorruptObject, InvalidArgument, NotFound, ResourceExhausted, StartupError
from servicekit.objects._area import OBJECTS, Area
from servicekit.objects._bucket import Bucket
from servicekit.objects._folder import Folder

crash.primitive(__name__)
_CHUNK = 1 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class ObjectStore:
    """Objects by digest (``sha256:<64 hex>``); safe for many threads and processes at once.

    Args:
        url: a folder, or ``s3://bucket/prefix`` or another fsspec URL.
        cache: the folder for local copies when ``url`` is not one; it may be emptied at any time.

    Raises:
        StartupError: the folder cannot be created, or the bucket cannot be reached with these settings.
    """

    def __init__(self, url: str | Path, cache: Path | None = None) -> None:
        text = str(url).removeprefix("file://")
        self._bucket: Bucket | None = None
        if "://" in text:
            if cache is None:
                raise StartupError(f"object store {text} needs a cache folder")
            self._bucket = Bucket(text)
        self._folder = Folder(Path(text) if self._bucket is None else cache or Path())
        self._folder.remove_leftovers(utc_now())

    @property
    def area(self) -> Area:
        """The storage of the objects: the bucket, or the folder when there is no bucket."""
        return self._folder if self._bucket is None else self._bucket

    def put_bytes(self, data: bytes) -> str:
        """Stores bytes and returns their digest.

        Raises:
            ResourceExhausted: the disk is full.
            Unavailable: the bucket does not answer.
        """
        return self._put([data])

    def put_chunks(self, chunks: Iterable[bytes]) -> str:
        """Stores the bytes of all chunks as one object, without holding them in memory, and returns their digest.

        Raises like `put_bytes`; what raises while the chunks are made leaves no object.
        """
        return self._put(chunks)

    def put_file(self, path: Path) -> str:
        """Stores a copy of a file and returns its digest. The copy matches the digest even if the file changes meanwhile.

        Raises:
            ResourceExhausted: the disk is full.
        """
        with path.open("rb") as source:
            return self._put(_chunks(source))

    def get_bytes(self, digest: str) -> bytes:
        """Returns the object's bytes.

        Raises:
            NotFound: no such object.
            CorruptObject: the stored bytes have another digest.
            Unavailable: the bucket does not answer, and there is no local copy.
        """
        return self.local_path(digest).read_bytes()

    def open(self, digest: str) -> BinaryIO:
        """Returns the object as a binary file, verified before the first byte is read. Raises like `get_bytes`."""
        return self.local_path(digest).open("rb")

    def exists(self, digest: str) -> bool:
        """Returns whether the object is stored (with a bucket: in the bucket). Does not read its bytes."""
        return self.area.put_time(name_of(digest)) is not None

    def local_path(self, digest: str) -> Path:
        """Returns the path of a read-only file with the object's bytes, verified now; fetches it from the bucket at first use.

        Raises:
            NotFound: no such object.
            CorruptObject: the stored bytes have another digest.
        """
        path = self._folder.path / name_of(digest)
        if path.is_file():
            found = _hash(path)
            if found == digest:
                return path
            if self._bucket is None:
                raise CorruptObject(digest, found)
            path.unlink(missing_ok=True)  # only a copy: the bucket has the object
        if self._bucket is None:
            raise NotFound("object", digest)
        return self._fetch(self._bucket, digest)

    def _put(self, chunks: Iterable[bytes]) -> str:
        with self._written(chunks) as (temporary, digest):
            if self._bucket is not None:
                self._bucket.put(temporary, name_of(digest))
            self._folder.put(temporary, name_of(digest))
        return digest

    def _fetch(self, bucket: Bucket, digest: str) -> Path:
        name = name_of(digest)
        try:
            with (
                bucket.reaching(),
                bucket.open(name) as source,
                self._written(_chunks(source)) as (temporary, found),
            ):
                if found != digest:
                    raise CorruptObject(digest, found)
                self._folder.put(temporary, name)
        except FileNotFoundError:
            raise NotFound("object", digest) from None
        return self._folder.path / name

    @contextmanager
    def _written(self, chunks: Iterable[bytes]) -> Iterator[tuple[Path, str]]:
        """Yields a durable temporary file with the bytes, and their digest."""
        hasher = hashlib.sha256()
        with self._folder.temporary() as (path, file):
            try:
                for chunk in chunks:
                    hasher.update(chunk)
                    file.write(chunk)
                self._folder.finish(file)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                raise ResourceExhausted(
                    "DISK_FULL", f"the disk of the object store {self._folder.path} is full"
                ) from None
            yield path, f"sha256:{hasher.hexdigest()}"


def name_of(digest: str) -> str:
    """Returns the object's path below the root. Checks the digest, because it may come from a request.

    Raises:
        InvalidArgument: it is not a digest.
    """
    if _DIGEST.fullmatch(digest) is None:
        raise InvalidArgument(
            "digest", "digest.format", "must be sha256: and 64 hex digits in lower case", digest
        )
    hexadecimal = digest.removeprefix("sha256:")
    return f"{OBJECTS}/{hexadecimal[:2]}/{hexadecimal[2:]}"


def digest_of(name: str) -> str | None:
    """Returns the digest of the object with this name; None for other names."""
    digest = f"sha256:{''.join(name.split('/')[1:])}"
    return digest if _DIGEST.fullmatch(digest) and name_of(digest) == name else None


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _chunks(source: BinaryIO) -> Iterator[bytes]:
    while chunk := source.read(_CHUNK):
        yield chunk
