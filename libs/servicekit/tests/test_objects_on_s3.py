"""A store on S3: what its server shows, and what a service says when it cannot be had."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import fsspec
import pytest

from servicekit.database import utc_now
from servicekit.errors import CorruptObject, NotFound, StartupError, Unavailable
from servicekit.objects import ObjectStore, name_of
from servicekit.testing.s3 import S3Server, s3_server

pytestmark = pytest.mark.server
MISSING = "sha256:" + "7" * 64


@pytest.fixture
def url(s3: S3Server) -> str:
    return s3.new_bucket()


def bucket(url: str) -> fsspec.AbstractFileSystem:
    return fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)


def key(url: str, digest: str) -> str:
    return f"{url.removeprefix('s3://')}/{name_of(digest)}"


def test_a_large_object_is_sent_in_parts_and_is_one(url: str, tmp_path: Path) -> None:
    data = os.urandom(40 << 20)
    store = ObjectStore(url, cache=tmp_path / "one")
    digest = store.put_bytes(data)
    assert bucket(url).info(key(url, digest))["ETag"].strip('"').endswith("-3")
    assert ObjectStore(url, cache=tmp_path / "other").get_bytes(digest) == data


def test_half_an_upload_is_no_object_and_is_removed(url: str, tmp_path: Path) -> None:
    store, files = ObjectStore(url, cache=tmp_path), bucket(url)
    where = {"Bucket": url.split("/")[2], "Key": key(url, MISSING).partition("/")[2]}
    upload = files.call_s3("create_multipart_upload", **where)["UploadId"]
    files.call_s3("upload_part", UploadId=upload, PartNumber=1, Body=bytes(6 << 20), **where)
    assert not store.exists(MISSING)
    with pytest.raises(NotFound):
        store.get_bytes(MISSING)
    assert store.area.remove_leftovers(utc_now() + timedelta(hours=1)) == 1
    assert files.list_multipart_uploads(where["Bucket"]) == []


def test_bytes_that_changed_in_the_bucket_are_refused(url: str, tmp_path: Path) -> None:
    digest = ObjectStore(url, cache=tmp_path / "one").put_bytes(b"the truth")
    bucket(url).pipe_file(key(url, digest), b"the trutH")
    with pytest.raises(CorruptObject) as refused:
        ObjectStore(url, cache=tmp_path / "other").get_bytes(digest)
    assert refused.value.digest == digest


def test_an_object_that_is_only_in_the_cache_does_not_exist(url: str, tmp_path: Path) -> None:
    store = ObjectStore(url, cache=tmp_path)
    digest = store.put_bytes(b"soon gone")
    bucket(url).rm_file(key(url, digest))
    assert not store.exists(digest)
    assert store.put_bytes(b"soon gone") == digest
    assert store.exists(digest)


def test_a_server_outage_is_unavailable_and_cached_objects_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        store = ObjectStore(server.new_bucket(), cache=tmp_path)
        here = store.put_bytes(b"here")
        server.stop()
        assert store.get_bytes(here) == b"here"
        for ask in (lambda: store.put_bytes(b"more"), lambda: store.exists(here)):
            with pytest.raises(Unavailable) as outage:
                ask()
            assert outage.value.reason == "OBJECT_STORE_UNAVAILABLE"
            assert outage.value.retry_after_s is not None
    with pytest.raises(StartupError, match="does not answer") as at_start:
        ObjectStore("s3://bucket/prefix", cache=tmp_path)
    assert "\n" not in str(at_start.value)


def test_a_bucket_that_does_not_exist_is_said_at_the_start(s3: S3Server, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="there is no bucket 'no-such-bucket'"):
        ObjectStore("s3://no-such-bucket/prefix", cache=tmp_path)


def test_wrong_credentials_are_said_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server(INITIAL_NO_AUTH_ACTION_COUNT="1") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        url = server.new_bucket()  # the only request for which this server needs no credentials
        with pytest.raises(StartupError, match="denies access") as refused:
            ObjectStore(url, cache=tmp_path)
    assert "check AWS_ACCESS_KEY_ID" in str(refused.value)
    assert "\n" not in str(refused.value)
