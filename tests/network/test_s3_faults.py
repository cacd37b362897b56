"""S3 behind a network that fails. The deadline is shortened to a second here; `make faults` has the real one."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from openledger_testing.network_faults import FaultyProxy, Mode
from servicekit import heartbeats
from servicekit.errors import Unavailable
from servicekit.objects._bucket import Bucket
from servicekit.testing.s3 import S3Server, s3_server
from servicekit.testing.waiting import eventually

pytestmark = pytest.mark.server

LIMIT_S = 1.0


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture
def proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    port = urlsplit(s3.environment["AWS_ENDPOINT_URL"]).port
    assert port is not None
    with FaultyProxy(port, drip_every_s=0.05) as running:
        url = s3.new_bucket()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{running.port}")
        monkeypatch.setenv("TEST_BUCKET", url)
        yield running


@pytest.mark.parametrize("mode", [Mode.VANISH, Mode.DRIP])
def test_reads_and_writes_end_in_time_and_work_after_the_fault(
    proxy: FaultyProxy, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = set(threading.enumerate())
    bucket = Bucket(os.environ["TEST_BUCKET"])
    data = bytes(range(256)) * 40
    bucket.write("objects/a", data)
    monkeypatch.setattr(
        bucket, "_request_s", LIMIT_S
    )  # the SDK's first request takes longer: it loads its models
    proxy.strike(mode)

    def read() -> bytes:
        with bucket.reaching(), bucket.open("objects/a") as file:
            return file.read()

    for work in (read, lambda: bucket.write("objects/b", data)):
        with pytest.raises(Unavailable):
            work()
    assert [each for each in heartbeats.troubles() if each.loop == "object store"]
    proxy.heal()

    def is_read() -> bool:
        with suppress(Unavailable):  # a pooled connection that the fault struck fails once more
            assert read() == data
            return True
        return False

    eventually(is_read, "the object")
    assert not [each for each in heartbeats.troubles() if each.loop == "object store"]

    def left() -> list[threading.Thread]:
        return [each for each in threading.enumerate() if "handler" in each.name and each not in others]

    eventually(lambda: not left(), "the end of the handlers")


def named() -> str:
    """Returns what is reported about the object store; "" while it works."""
    return "".join(each.on for each in heartbeats.troubles() if each.loop == "object store")


def works(bucket: Bucket) -> bool:
    try:
        bucket.write("objects/a", b"data")
        with bucket.reaching(), bucket.open("objects/a") as file:
            return file.read() == b"data"
    except Unavailable:
        return False


class Nothing(BaseHTTPRequestHandler):
    """Of a server that is no object store."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(404)
        self.send_header("content-length", "0")
        self.end_headers()

    do_HEAD = do_PUT = do_GET

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def other_process() -> Iterator[int]:
    """The port of another server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Nothing)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_an_object_store_that_was_replaced_by_an_empty_one_is_named_until_it_has_the_bucket(
    s3: S3Server, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = os.environ["TEST_BUCKET"]
    bucket = Bucket(url)
    assert works(bucket)
    monkeypatch.setattr(bucket, "_request_s", LIMIT_S)
    s3.forget()
    proxy.replace(proxy.target)
    eventually(lambda: not works(bucket) and "has no bucket" in named(), "the missing bucket is named")
    s3.create_bucket(url)

    def asked() -> bool:
        heartbeats.recheck_failing()  # what a service does while no caller uses the store
        return not named()

    eventually(asked, "the store is not named any more")
    eventually(lambda: works(bucket), "the store works again")


def test_another_process_at_the_address_of_the_object_store_is_named(
    proxy: FaultyProxy, other_process: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = Bucket(os.environ["TEST_BUCKET"])
    assert works(bucket)
    monkeypatch.setattr(bucket, "_request_s", LIMIT_S)
    store = proxy.target
    proxy.replace(other_process)
    eventually(lambda: not works(bucket) and "has no bucket" in named(), "the missing bucket is named")
    proxy.replace(store)
    eventually(lambda: works(bucket) and not named(), "the store works again")
