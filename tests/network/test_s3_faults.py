"""S3 behind a network that fails. The deadline is shortened to a second here; `make faults` has the real one."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from openledger_testing.network_faults import FaultyProxy, Mode
from servicekit import heartbeats
from servicekit.errors import Unavailable
from servicekit.objects._bucket import Bucket
from servicekit.testing.s3 import S3Server, s3_server

pytestmark = pytest.mark.server

LIMIT_S = 1.0
ANSWERED_S = 3 * LIMIT_S + 10
"""Opening asks for the size and then reads; s3fs notices a deadline up to a second later; a busy machine is slow."""


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
        begun = time.monotonic()
        with pytest.raises(Unavailable):
            work()
        assert time.monotonic() - begun < ANSWERED_S
    assert [each for each in heartbeats.troubles() if each.loop == "object store"]
    proxy.heal()
    begun = time.monotonic()
    while True:  # a pooled connection that the fault struck fails once more
        try:
            assert read() == data
            break
        except Unavailable:
            assert time.monotonic() - begun < 10
    assert not [each for each in heartbeats.troubles() if each.loop == "object store"]
    assert not [each for each in threading.enumerate() if "handler" in each.name and each not in others]
