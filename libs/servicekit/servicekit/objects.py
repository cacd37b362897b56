"""Large things by what they are: bytes named by their SHA-256, never changed, verified whenever they are read.

A store is a local folder, and optionally a bucket behind it. With a bucket, the folder is a cache of it: what is put is
in both before `put_*` returns, what is read comes from the folder or is fetched once. The layout of both is
``sha256/<2 hex>/<62 hex>``.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import fsspec

from servicekit import crash
from servicekit.errors import CorruptObject, InvalidArgument, NotFound, ResourceExhausted, StartupError
from servicekit.files import sync_folder

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
        StartupError: the folder cannot be made, or the URL's file system is not installed.
    """

    def __init__(self, url: str | Path, cache: Path | None = None) -> None:
        text = str(url).removeprefix("file://")
        self._remote: Any = None
        self._remote_root = ""
        if "://" in text:
            if cache is None:
                raise StartupError(f"object store {text} needs a cache folder")
            self._remote, self._remote_root = _remote(text)
            self._folder = cache
        else:
            self._folder = Path(text)
        try:
            (self._folder / "sha256").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartupError(f"cannot make the object store {self._folder}: {error.strerror}") from None

    def put_bytes(self, data: bytes) -> str:
        """Stores bytes and returns their digest.

        Raises:
            ResourceExhausted: the disk is full.
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
        """
        return self.local_path(digest).read_bytes()

    def open(self, digest: str) -> BinaryIO:
        """The object as a binary file, verified before the first byte is read. Errors as `get_bytes`."""
        return self.local_path(digest).open("rb")

    def exists(self, digest: str) -> bool:
        """Whether the object is stored; its bytes are not read."""
        return self._path(digest).is_file() or (
            self._remote is not None and self._remote.isfile(self._key(digest))
        )

    def local_path(self, digest: str) -> Path:
        """A read-only file with the object's bytes, verified now; fetched from the bucket at first use.

        Raises:
            NotFound: no such object.
            CorruptObject: what is stored has another digest.
        """
        path = self._path(digest)
        if path.is_file():
            found = _hash(path)
            if found == digest:
                return path
            if self._remote is None:
                raise CorruptObject(digest, found)
            path.unlink(missing_ok=True)  # only a copy: the bucket has the object
        if self._remote is None:
            raise NotFound("object", digest)
        return self._fetch(digest)

    def _put(self, chunks: Iterable[bytes]) -> str:
        temporary, digest = self._write(chunks)
        try:
            if self._remote is not None and not self._remote.isfile(self._key(digest)):
                # A bucket shows an object only when it is whole, so a half sent one is never seen.
                self._remote.makedirs(self._key(digest).rsplit("/", 1)[0], exist_ok=True)
                with crash.step("upload"):
                    self._remote.put_file(str(temporary), self._key(digest))
            self._publish(temporary, digest)
        finally:
            temporary.unlink(missing_ok=True)
        return digest

    def _fetch(self, digest: str) -> Path:
        try:
            with self._remote.open(self._key(digest), "rb") as source:
                temporary, found = self._write(_chunks(source))
        except FileNotFoundError:
            raise NotFound("object", digest) from None
        try:
            if found != digest:
                raise CorruptObject(digest, found)
            return self._publish(temporary, digest)
        finally:
            temporary.unlink(missing_ok=True)

    def _write(self, chunks: Iterable[bytes]) -> tuple[Path, str]:
        """Writes a temporary file, durable before it gets its name. Returns it with the digest of what was written."""
        hasher = hashlib.sha256()
        handle, name = tempfile.mkstemp(prefix=".new-", dir=self._folder)
        try:
            with os.fdopen(handle, "wb") as file:
                for chunk in chunks:
                    hasher.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fchmod(file.fileno(), 0o444)
                os.fsync(file.fileno())
        except BaseException as error:
            Path(name).unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno in _FULL:
                raise ResourceExhausted(
                    "DISK_FULL", f"the disk of the object store {self._folder} is full"
                ) from None
            raise
        return Path(name), f"sha256:{hasher.hexdigest()}"

    def _publish(self, temporary: Path, digest: str) -> Path:
        """Gives a whole file its name. Whoever comes second replaces the same bytes, which also mends a corrupt copy."""
        path = self._path(digest)
        path.parent.mkdir(exist_ok=True)
        with crash.step("object"):
            temporary.replace(path)
            sync_folder(path.parent)
        return path

    def _path(self, digest: str) -> Path:
        return self._folder / _relative(digest)

    def _key(self, digest: str) -> str:
        return f"{self._remote_root}/{_relative(digest)}"


def _relative(digest: str) -> str:
    """The object's place below the root. A digest may come from a request, so it must not reach beyond."""
    if _DIGEST.fullmatch(digest) is None:
        raise InvalidArgument(
            "digest", "digest.format", "must be sha256: and 64 hex digits in lower case", digest
        )
    hexadecimal = digest.removeprefix("sha256:")
    return f"sha256/{hexadecimal[:2]}/{hexadecimal[2:]}"


def _remote(url: str) -> tuple[Any, str]:
    try:
        filesystem, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise StartupError(f"object store {url}: {error}") from None
    return filesystem, str(root).rstrip("/")


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _chunks(source: BinaryIO) -> Iterator[bytes]:
    while chunk := source.read(_CHUNK):
        yield chunk
