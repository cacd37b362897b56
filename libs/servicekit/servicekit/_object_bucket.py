"""A bucket of objects: S3, or another store that fsspec reaches and that shows an object only when it is whole.

The AWS SDK's own variables say how to reach it: ``AWS_ENDPOINT_URL`` (for a store that is not Amazon's), ``AWS_REGION``,
``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY``, or whatever else its chain of credentials finds. The SDK tries a request
that fails several times; what then still fails is `Unavailable`.

S3 has no locks, so a sweep announces what it is about to remove (``sweeping/...``), and a put looks for announcements after
its upload, and then whether its object is there:

- the put sees the announcement: it waits for the sweep's end, looks, and uploads again if it must;
- it looked before the announcement: then the upload was before it too, and the sweep, which asks each object's age after
  its announcement, finds it young;
- it looked after the announcement was gone: then what the sweep removed was removed before the put's last look.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from servicekit import crash
from servicekit._object_area import Entry
from servicekit.database.columns import ulid, utc_now
from servicekit.errors import StartupError, Unavailable

crash.primitive(__name__)
FRESH = timedelta(hours=1)
"""No sweep takes what is younger, for at least as long again: its grace is twice that."""

_PART_BYTES = 16 << 20
"""Larger objects are sent in parts of this size, which S3 joins at the end."""
_SWEEP_NAMES = 200
_SWEEP_S = 60.0
_CLOCKS_DIFFER_S = 30.0
_SWEEPING = "sweeping"
_S3_OPTIONS = {
    "skip_instance_cache": True,  # an instance remembers its endpoint, whatever the environment says later
    # A listing from memory would say that what others have put is not there.
    "use_listings_cache": False,
    "config_kwargs": {
        "connect_timeout": 5,
        "read_timeout": 60,
        "retries": {"mode": "standard", "max_attempts": 3},
    },
}


class Bucket:
    """See `Area`. What was put less than `fresh` ago is not sent again.

    Raises:
        StartupError: the URL's file system is not installed, or the bucket does not exist, does not answer or refuses us.
    """

    def __init__(self, url: str, fresh: timedelta = FRESH) -> None:
        self._url = url
        self._fresh = fresh
        self._s3 = url.startswith(("s3://", "s3a://"))
        try:
            filesystem, root = fsspec.core.url_to_fs(url, **(_S3_OPTIONS if self._s3 else {}))
        except (ImportError, ValueError) as error:
            raise StartupError(f"object store {url}: {error}") from None
        self._files: Any = filesystem
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
        """See Area. What is read later may raise as the file system does: use `reaching`."""
        with self._reaching():
            return cast("BinaryIO", self._files.open(self._key(name), "rb"))

    def put_time(self, name: str) -> datetime | None:
        """See Area."""
        try:
            with self._reaching():
                return _put_time(self._files.info(self._key(name)))
        except FileNotFoundError:
            return None

    def entries(self, prefix: str) -> Iterator[Entry]:
        """See Area."""
        with self._reaching():
            found = self._files.find(self._key(prefix), detail=True)
        for key, information in found.items():
            name = str(key).lstrip("/").removeprefix(self._root.lstrip("/") + "/")
            yield Entry(name, _put_time(information), int(information["size"]))

    def remove_older(self, names: Sequence[str], than: datetime) -> list[str]:
        """See Area. Some may be left to the next sweep: an announcement stands for a minute only."""
        removed: list[str] = []
        for start in range(0, len(names), _SWEEP_NAMES):
            removed += self._sweep(names[start : start + _SWEEP_NAMES], than)
        return removed

    def write(self, name: str, data: bytes) -> None:
        """See Area."""
        with self._reaching(), crash.step("upload"):
            self._make_folder(self._key(name))
            self._files.pipe_file(self._key(name), data)

    def remove(self, name: str) -> None:
        """See Area."""
        try:
            with self._reaching(), crash.step("remove"):
                self._files.rm_file(self._key(name))
        except FileNotFoundError:
            return

    def remove_leftovers(self, than: datetime) -> int:
        """See Area: announcements of sweeps that died, and uploads in parts that nobody will finish."""
        found = 0
        for entry in list(self.entries(_SWEEPING)):
            if entry.put_time < than:
                self.remove(entry.name)
                found += 1
        return found + (self._abort_uploads(than) if self._s3 else 0)

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """For whoever reads an opened object.

        Raises:
            Unavailable: the store does not answer, or refuses us.
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
            threading.Event().wait(
                0.2
            )  # nobody tells us when it ends; at the latest when its announcement ends

    def _is_about(self, announcement: str, name: str) -> bool:
        try:
            with self._reaching():
                said = json.loads(self._files.cat_file(self._key(announcement)))
        except FileNotFoundError:
            return False
        over = datetime.fromisoformat(said["end"]) + timedelta(seconds=_CLOCKS_DIFFER_S)
        return name in said["names"] and utc_now() < over

    def _upload(self, temporary: Path, key: str) -> None:
        self._make_folder(key)
        options = {"chunksize": _PART_BYTES} if self._s3 else {}
        self._files.put_file(str(temporary), key, **options)

    def _make_folder(self, key: str) -> None:
        if not self._s3:
            self._files.makedirs(key.rsplit("/", 1)[0], exist_ok=True)

    def _abort_uploads(self, than: datetime) -> int:
        bucket, _, prefix = self._root.partition("/")
        with self._reaching():
            open_ones = self._files.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix)
            old = [each for each in open_ones.get("Uploads", ()) if each["Initiated"] < than]
            for each in old:
                self._files.call_s3(
                    "abort_multipart_upload", Bucket=bucket, Key=each["Key"], UploadId=each["UploadId"]
                )
        return len(old)

    def _try(self) -> None:
        """One request, so that what is set wrongly is said at the start and not at the first object."""
        bucket, _, prefix = self._root.partition("/")
        try:
            self._files.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
        except FileNotFoundError:
            raise StartupError(f"object store {self._url}: there is no bucket {bucket!r}") from None
        except PermissionError as error:
            raise StartupError(
                f"object store {self._url} refuses us ({_line(error)}): check AWS_ACCESS_KEY_ID,"
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
        except FileNotFoundError:
            raise
        except PermissionError as error:
            raise Unavailable(
                "OBJECT_STORE_REFUSED", f"object store {self._url} refuses us: {_line(error)}"
            ) from error
        except Exception as error:
            if not _is_outage(error):
                raise
            message = f"object store {self._url} does not answer: {_line(error)}"
            raise Unavailable("OBJECT_STORE_UNAVAILABLE", message, retry_after_s=5) from error

    def _key(self, name: str) -> str:
        return f"{self._root}/{name}"


def _is_outage(error: Exception) -> bool:
    """What the SDK and the layers below it raise; they share no base class."""
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
