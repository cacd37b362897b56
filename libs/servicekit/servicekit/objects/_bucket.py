"""A bucket of objects: S3, or another store that fsspec supports and that shows objects only when they are complete.

The AWS SDK's own variables configure the access: ``AWS_ENDPOINT_URL`` (for a store that is not Amazon's), ``AWS_REGION``,
``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY``, or another source in its chain of credentials. The SDK retries a request
several times; a request that still fails raises `Unavailable`.

S3 has no locks. So a sweep announces which objects it may remove (``sweeping/...``). After its upload, a put checks for
announcements, and then checks that its object exists:

- The put sees the announcement: it waits for the end of the sweep, checks, and uploads again if necessary.
- The put checked before the announcement: then its upload was also before it. The sweep reads each object's age after its
  announcement, so it finds the object young and keeps it.
- The put checked after the announcement was removed: then the sweep had removed its objects before the put's last check.
"""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from servicekit import crash
from servicekit.database.columns import ulid, utc_now
from servicekit.deadlines import CONNECT_S, STORE_BYTES_PER_S, STORE_S
from servicekit.errors import StartupError, Unavailable
from servicekit.heartbeats import Heartbeat
from servicekit.objects._area import Entry

crash.primitive(__name__)
FRESH = timedelta(hours=1)
"""A younger object is not uploaded again: no sweep removes it within this time, because the grace of a sweep is twice as long."""

_PART_BYTES = 16 << 20
"""Larger objects are sent in parts of this size, which S3 joins at the end."""
_READ_BYTES = 4 << 20
"""An object is read in ranges of this size, each within a deadline."""
_LISTING_TIMES = 30
"""A listing makes one request per thousand objects; it may take so many deadlines of a request."""
_RETRIES = 2
"""Of s3fs, each with the SDK's own attempts. The deadline is for all of them."""
_SEEN_S = 5.0
"""A missing object is taken for missing, and not for a missing bucket, for so long after the bucket was seen."""
_SWEEP_NAMES = 200
_SWEEP_S = 60.0
_CLOCKS_DIFFER_S = 30.0
_SWEEPING = "sweeping"
_S3_OPTIONS = {
    "skip_instance_cache": True,  # an instance remembers its endpoint, whatever the environment says later
    # A cached listing would not show what other processes have put.
    "use_listings_cache": False,
    "config_kwargs": {
        "connect_timeout": CONNECT_S,
        "read_timeout": STORE_S / 2,
        "retries": {"mode": "standard", "max_attempts": 2},
    },
}


class Bucket:
    """See `Area`. An object that was put less than `fresh` ago is not uploaded again.

    Raises:
        StartupError: the URL's file system is not installed, or the bucket does not exist, does not answer or denies access.
    """

    def __init__(self, url: str, fresh: timedelta = FRESH) -> None:
        self._url = url
        self._request_s = STORE_S
        self._heartbeat = Heartbeat("object store", recheck=self.recheck)
        self._fresh = fresh
        self._seen_at = -_SEEN_S
        self._s3 = url.startswith(("s3://", "s3a://"))
        try:
            filesystem, root = fsspec.core.url_to_fs(url, **(_S3_OPTIONS if self._s3 else {}))
        except (ImportError, ValueError) as error:
            raise StartupError(f"object store {url}: {error}") from None
        self._files: Any = filesystem
        if self._s3:
            filesystem.retries = _RETRIES
        self._root = str(root).rstrip("/")
        if self._s3:
            self._try()

    def put(self, temporary: Path, name: str) -> None:
        """See Area."""
        put_time = self.put_time(name)
        if put_time is not None and utc_now() - put_time < self._fresh:
            return
        while True:
            with self._reaching(), crash.step("upload"):
                self._upload(temporary, self._key(name))
            self._wait_for_sweep(name)
            if self.put_time(name) is not None:
                return

    def open(self, name: str) -> BinaryIO:
        """See Area. Later reads may raise errors of the file system: use `reaching`."""
        with self._reaching():
            key = self._key(name)
            if not self._s3:
                return cast("BinaryIO", self._files.open(key, "rb"))
            size = int(self._files.info(key, **self._limit())["size"])
            return io.BufferedReader(_Ranges(self._range, key, size), _READ_BYTES)

    def put_time(self, name: str) -> datetime | None:
        """See Area."""
        try:
            with self._reaching():
                return _put_time(self._files.info(self._key(name), **self._limit()))
        except FileNotFoundError:
            return None

    def entries(self, prefix: str) -> Iterator[Entry]:
        """See Area."""
        with self._reaching():
            found = self._files.find(self._key(prefix), detail=True, **self._limit(_LISTING_TIMES))
        for key, information in found.items():
            name = str(key).lstrip("/").removeprefix(self._root.lstrip("/") + "/")
            yield Entry(name, _put_time(information), int(information["size"]))

    def remove_older(self, names: Sequence[str], than: datetime) -> list[str]:
        """See Area. Some may be left to the next sweep, because an announcement is valid for one minute only."""
        removed: list[str] = []
        for start in range(0, len(names), _SWEEP_NAMES):
            removed += self._sweep(names[start : start + _SWEEP_NAMES], than)
        return removed

    def write(self, name: str, data: bytes) -> None:
        """See Area."""
        with self._reaching(), crash.step("upload"):
            self._make_folder(self._key(name))
            self._files.pipe_file(self._key(name), data, **self._limit())

    def remove(self, name: str) -> None:
        """See Area."""
        try:
            with self._reaching(), crash.step("remove"):
                self._files.rm_file(self._key(name), **self._limit())
        except FileNotFoundError:
            return

    def remove_leftovers(self, than: datetime) -> int:
        """See Area: removes announcements of sweeps that died, and unfinished multipart uploads."""
        found = 0
        for entry in list(self.entries(_SWEEPING)):
            if entry.put_time < than:
                self.remove(entry.name)
                found += 1
        return found + (self._abort_uploads(than) if self._s3 else 0)

    def recheck(self) -> None:
        """Makes one request. Raises Unavailable."""
        with self._reaching():
            if self._s3:
                self._seen_at = (
                    -_SEEN_S
                )  # a missing bucket is no missing object, however recently it was seen
                bucket, _, prefix = self._root.partition("/")
                self._list_one(bucket, prefix)
            else:
                self._files.exists(self._root)

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """Wraps the reading of an opened object.

        Raises:
            Unavailable: the store does not answer, or denies access.
        """
        with self._reaching():
            yield

    def _sweep(self, names: Sequence[str], than: datetime) -> list[str]:
        announcement, removed = f"{_SWEEPING}/{ulid()}", []
        end = utc_now() + timedelta(seconds=_SWEEP_S)
        self.write(announcement, json.dumps({"end": end.isoformat(), "names": list(names)}).encode())
        try:
            for name in names:
                put_time = self.put_time(name)
                if utc_now() + timedelta(seconds=_CLOCKS_DIFFER_S) > end:
                    break
                if put_time is not None and put_time < than:
                    self.remove(name)
                    removed.append(name)
        finally:
            self.remove(announcement)
        return removed

    def _wait_for_sweep(self, name: str) -> None:
        while any(self._is_about(entry.name, name) for entry in self.entries(_SWEEPING)):
            # S3 does not notify; the wait ends at the latest when the announcement is no longer valid.
            threading.Event().wait(0.2)

    def _is_about(self, announcement: str, name: str) -> bool:
        try:
            with self._reaching():
                said = json.loads(self._files.cat_file(self._key(announcement), **self._limit()))
        except FileNotFoundError:
            return False
        over = datetime.fromisoformat(said["end"]) + timedelta(seconds=_CLOCKS_DIFFER_S)
        return name in said["names"] and utc_now() < over

    def _upload(self, temporary: Path, key: str) -> None:
        self._make_folder(key)
        if self._s3:
            size = temporary.stat().st_size
            limit_s = self._request_s + size / STORE_BYTES_PER_S
            self._files.put_file(str(temporary), key, chunksize=_PART_BYTES, timeout=limit_s)
        else:
            self._files.put_file(str(temporary), key)

    def _range(self, key: str, start: int, end: int) -> bytes:
        """Returns bytes of an object. A part is read whole, so it has a deadline."""
        return cast("bytes", self._files.cat_file(key, start=start, end=end, **self._limit(2)))

    def _limit(self, times: int = 1) -> dict[str, float]:
        """Returns the deadline of one operation as s3fs takes it, retries included: it then cancels the request."""
        return {"timeout": self._request_s * times} if self._s3 else {}

    def _make_folder(self, key: str) -> None:
        if not self._s3:
            self._files.makedirs(key.rsplit("/", 1)[0], exist_ok=True)

    def _abort_uploads(self, than: datetime) -> int:
        bucket, _, prefix = self._root.partition("/")
        with self._reaching():
            open_ones = self._files.call_s3(
                "list_multipart_uploads", Bucket=bucket, Prefix=prefix, **self._limit()
            )
            old = [each for each in open_ones.get("Uploads", ()) if each["Initiated"] < than]
            for each in old:
                self._files.call_s3(
                    "abort_multipart_upload",
                    Bucket=bucket,
                    Key=each["Key"],
                    UploadId=each["UploadId"],
                    **self._limit(),
                )
        return len(old)

    def _try(self) -> None:
        """Makes one request, so that wrong settings are reported at the start and not at the first object."""
        bucket, _, prefix = self._root.partition("/")
        try:
            self._list_one(bucket, prefix)
        except FileNotFoundError:
            raise StartupError(f"object store {self._url}: there is no bucket {bucket!r}") from None
        except PermissionError as error:
            raise StartupError(
                f"object store {self._url} denies access ({_line(error)}): check AWS_ACCESS_KEY_ID,"
                " AWS_SECRET_ACCESS_KEY and the bucket's policy"
            ) from None
        except Exception as error:
            if not _is_outage(error):
                raise
            raise StartupError(f"object store {self._url} does not answer: {_line(error)}") from None

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
            self._heartbeat.succeeded()
        except FileNotFoundError as error:
            if (message := self._missing()) is not None:
                self._heartbeat.failed(message)
                raise Unavailable("OBJECT_STORE_UNAVAILABLE", message, retry_after_s=5) from error
            self._heartbeat.succeeded()
            raise
        except PermissionError as error:
            message = f"object store {self._url} denies access: {_line(error)}"
            self._heartbeat.failed(message)
            raise Unavailable("OBJECT_STORE_REFUSED", message) from error
        except Exception as error:
            if not _is_outage(error):
                raise
            message = f"object store {self._url} does not answer: {_line(error)}"
            self._heartbeat.failed(message)
            raise Unavailable("OBJECT_STORE_UNAVAILABLE", message, retry_after_s=5) from error

    def _missing(self) -> str | None:
        """Returns what is wrong when the bucket itself is missing: another process answers at the store's address.

        For a single object S3 answers the same, whether the object or its bucket is missing.
        """
        if not self._s3 or time.monotonic() - self._seen_at < _SEEN_S:
            return None
        bucket, _, prefix = self._root.partition("/")
        try:
            self._list_one(bucket, prefix)
        except Exception as error:
            if not _is_outage(error):
                raise
            return f"object store {self._url} has no bucket {bucket!r} any more: {_line(error)}"
        self._seen_at = time.monotonic()
        return None

    def _list_one(self, bucket: str, prefix: str) -> None:
        self._files.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1, **self._limit())

    def _key(self, name: str) -> str:
        return f"{self._root}/{name}"


class _Ranges(io.RawIOBase):
    """An object as a file, which reads one range at a time."""

    def __init__(self, read: Callable[[str, int, int], bytes], key: str, size: int) -> None:
        self._read_range = read
        self._key = key
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._size)
        if end <= self._at:
            return 0
        data = self._read_range(self._key, self._at, end)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _is_outage(error: Exception) -> bool:
    """Returns whether the SDK or a layer below it raised the error; their errors share no base class."""
    layer = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError | TimeoutError) or layer in (
        "botocore",
        "aiobotocore",
        "aiohttp",
        "fsspec",
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _put_time(information: dict[str, Any]) -> datetime:
    found = information.get("LastModified") or information["created"]
    if isinstance(found, int | float):  # fsspec's memory
        found = datetime.fromtimestamp(found, UTC)
    elif isinstance(found, str):
        found = datetime.fromisoformat(found)
    assert isinstance(found, datetime)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
