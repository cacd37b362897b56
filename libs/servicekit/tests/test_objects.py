"""An object is what its name says, or it is not given out."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest

from servicekit.errors import CorruptObject, InvalidArgument, NotFound, StartupError
from servicekit.objects import ObjectStore

MISSING = "sha256:" + "0" * 64


@pytest.fixture
def store(store_url: str, tmp_path: Path) -> ObjectStore:
    return ObjectStore(store_url, cache=tmp_path / "cache")


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != ".sweep-lock"]


def test_what_is_put_is_got_by_its_digest(store: ObjectStore, tmp_path: Path) -> None:
    data = bytes(range(256)) * 9000
    (tmp_path / "file").write_bytes(data)
    digest = store.put_bytes(data)
    assert digest == f"sha256:{hashlib.sha256(data).hexdigest()}" == store.put_file(tmp_path / "file")
    assert store.exists(digest)
    assert store.get_bytes(digest) == data
    with store.open(digest) as file:
        assert file.read(3) == data[:3]
    assert store.local_path(digest).stat().st_mode & 0o222 == 0


def test_an_unknown_object_is_not_found_by_name(store: ObjectStore) -> None:
    assert not store.exists(MISSING)
    with pytest.raises(NotFound, match=MISSING):
        store.get_bytes(MISSING)


@pytest.mark.parametrize("digest", ["", "sha256:../../etc/passwd", "sha256:" + "A" * 64, "md5:" + "0" * 32])
def test_a_name_that_is_no_digest_reaches_no_file(store: ObjectStore, digest: str) -> None:
    with pytest.raises(InvalidArgument, match="64 hex"):
        store.exists(digest)


def test_bytes_that_changed_on_disk_are_refused(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    digest = store.put_bytes(b"the truth")
    path = store.local_path(digest)
    path.chmod(0o644)
    path.write_bytes(b"the trutH")
    with pytest.raises(CorruptObject) as refused:
        store.open(digest)
    assert refused.value.digest == digest
    assert refused.value.found != digest
    assert store.put_bytes(b"the truth") == digest
    assert store.get_bytes(digest) == b"the truth"


def test_a_spoilt_local_copy_is_fetched_again_and_a_spoilt_bucket_refused(tmp_path: Path) -> None:
    bucket = f"bucket-{uuid4().hex}"
    store = ObjectStore(f"memory://{bucket}", cache=tmp_path)
    digest = store.put_bytes(b"kept in both")
    store.local_path(digest).unlink()
    assert store.get_bytes(digest) == b"kept in both"
    path = store.local_path(digest)
    path.chmod(0o644)
    path.write_bytes(b"spoilt")
    assert store.get_bytes(digest) == b"kept in both"
    path.unlink()
    hexadecimal = digest.removeprefix("sha256:")
    fsspec.filesystem("memory").pipe_file(f"/{bucket}/sha256/{hexadecimal[:2]}/{hexadecimal[2:]}", b"spoilt")
    with pytest.raises(CorruptObject):
        store.get_bytes(digest)
    assert files_in(tmp_path) == []


def test_another_machine_reads_what_one_put(store_url: str, tmp_path: Path) -> None:
    data = bytes(range(256)) * 80_000  # more than is read at once
    digest = ObjectStore(store_url, cache=tmp_path / "one").put_bytes(data)
    other = ObjectStore(store_url, cache=tmp_path / "other")
    assert other.exists(digest)
    assert other.get_bytes(digest) == data


def test_many_may_put_the_same_object_at_once(store: ObjectStore) -> None:
    data = bytes(300_000)
    with ThreadPoolExecutor(8) as pool:
        digests = set(pool.map(store.put_bytes, [data] * 32))
    assert len(digests) == 1
    assert store.get_bytes(digests.pop()) == data


def test_a_full_disk_is_one_line_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    """A file size limit of a child process stands for the full disk: writing fails in the same way."""
    program = (
        "import resource, signal, sys\n"
        "from servicekit.objects.store import ObjectStore, ResourceExhausted\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n    ObjectStore(sys.argv[1]).put_bytes(bytes(1_000_000))\n"
        "except ResourceExhausted as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"the disk of the object store {tmp_path} is full\n"
    assert files_in(tmp_path) == []


def test_a_store_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match="cannot make the object store"):
        ObjectStore(tmp_path / "file" / "objects")
    with pytest.raises(StartupError, match="nosuch"):
        ObjectStore("nosuch://bucket", cache=tmp_path)
