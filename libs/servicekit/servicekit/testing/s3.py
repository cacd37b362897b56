"""For tests: an S3 server (moto) in its own process on a free port, until the block ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.request import Request, urlopen
from uuid import uuid4

_SERVER = """
import threading
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)  # the system chooses a free port
server.start()
print(server.get_host_and_port()[1], flush=True)
threading.Event().wait()
"""
_KEY = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "a secret", "AWS_REGION": "us-east-1"}


class S3Server:
    """A running server. It keeps objects in memory, so they are lost when it stops."""

    def __init__(self, **settings: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            env={**os.environ, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        port = self._process.stdout.readline().strip()
        if not port:
            raise RuntimeError(f"the S3 server ended with code {self._process.wait()} before it listened")
        self.environment: Mapping[str, str] = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", **_KEY}
        """Environment variables with which a process reaches it."""

    def new_bucket(self) -> str:
        """Returns the URL of a prefix in a new, empty bucket."""
        url = f"s3://bucket-{uuid4().hex}/some/prefix"
        self.create_bucket(url)
        return url

    def create_bucket(self, url: str) -> None:
        """Makes the bucket of a URL that `new_bucket` returned, after `forget`."""
        name = url.split("/")[2]
        urlopen(Request(f"{self.environment['AWS_ENDPOINT_URL']}/{name}", method="PUT")).close()

    def forget(self) -> None:
        """Drops all buckets, as a server does that starts again without its data."""
        urlopen(
            Request(f"{self.environment['AWS_ENDPOINT_URL']}/moto-api/reset", data=b"", method="POST")
        ).close()

    def stop(self) -> None:
        """Kills the server: clients then cannot connect."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


@contextmanager
def s3_server(**settings: str) -> Iterator[S3Server]:
    """Yields a server that runs until the block ends; `settings` are environment variables of moto."""
    server = S3Server(**settings)
    try:
        yield server
    finally:
        server.stop()
