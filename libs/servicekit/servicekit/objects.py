"""Large things by what they are: bytes named by their SHA-256, never changed, verified whenever they are read.

A store is a local folder, and optionally a bucket behind it. With a bucket, the folder is a cache of it: what is put is
in both before `put_*` returns, what is read comes from the folder or is fetched once. The layout of both is
``sha256/<2 hex>/<62 hex>``.

Objects that nobody refers to are collected (`servicekit.object_collection`), so whoever puts one must refer to it in a
database, or in another object that is referred to so, within an hour. A put of what is there already makes it young again.
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
from servicekit._object_area import OBJECTS, Area
from servicekit._object_bucket import Bucket
from servicekit._object_folder import Folder
from servicekit.database.columns import utc_now
from servicekit.errors import CorruptObject, InvalidArgument, NotFound, ResourceExhausted, StartupError

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
        StartupError: the folder cannot be made, or the bucket cannot be reached with what is set.
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
        """Where the objects themselves lie: the bucket, or the folder when there is none."""
        return self._folder if self._bucket is None else self._bucket

    def put_bytes(self, data: bytes) -> str:
        """Stores bytes and returns their digest.

        Raises:
            ResourceExhausted: the disk is full.
            Unavailable: the bucket does not answer.
        """
        return self._put([data])

    def put_file(self, path: Path) -> str:
        """Stores a copy of a file and returns its digest; the copy is what was hashed even if the file changes meanwhile.

        Raises:
            ResourceExhausted: the disk is full.
        """
        with path.open("rb") as source:
            return self._put(_chunks(source))

    def get_bytes(self, digest: str) -> bytes:
        """The object's bytes.

        Raises:
            NotFound: no such object.
            CorruptObject: what is stored has another digest.
            Unavailable: the bucket does not answer, and no copy is here.
        """
        return self.local_path(digest).read_bytes()

    def open(self, digest: str) -> BinaryIO:
        """The object as a binary file, verified before the first byte is read. Errors as `get_bytes`."""
        return self.local_path(digest).open("rb")

    def exists(self, digest: str) -> bool:
        """Whether the object is stored (with a bucket: there, whatever copies are here); its bytes are not read."""
        return self.area.put_time(name_of(digest)) is not None

    def local_path(self, digest: str) -> Path:
        """A read-only file with the object's bytes, verified now; fetched from the bucket at first use.

        Raises:
            NotFound: no such object.
            CorruptObject: what is stored has another digest.
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
        """A temporary file, durable before it gets its name, and the digest of what was written to it."""
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
    """The object's place below the root. A digest may come from a request, so it must not reach beyond.

    Raises:
        InvalidArgument: it is no digest.
    """
    if _DIGEST.fullmatch(digest) is None:
        raise InvalidArgument(
            "digest", "digest.format", "must be sha256: and 64 hex digits in lower case", digest
        )
    hexadecimal = digest.removeprefix("sha256:")
    return f"{OBJECTS}/{hexadecimal[:2]}/{hexadecimal[2:]}"


def digest_of(name: str) -> str | None:
    """The digest of the object with this name; None for a name of something else."""
    digest = f"sha256:{''.join(name.split('/')[1:])}"
    return digest if _DIGEST.fullmatch(digest) and name_of(digest) == name else None


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _chunks(source: BinaryIO) -> Iterator[bytes]:
    while chunk := source.read(_CHUNK):
        yield chunk
