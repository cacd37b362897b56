"""For tests: an S3 server (moto) in its own process on a free port, until the block ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen
from uuid import uuid4

_START_S = 60.0
_KEY = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "a secret", "AWS_REGION": "us-east-1"}


class S3Server:
    """A running server. It keeps objects in memory, so they are lost when it stops."""

    def __init__(self, **settings: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        self._settings = settings
        self.environment: Mapping[str, str] = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}", **_KEY}
        """Environment variables with which a process reaches it."""
        self._process = self._started()

    def new_bucket(self) -> str:
        """Returns the URL of a prefix in a new, empty bucket."""
        name = f"bucket-{uuid4().hex}"
        urlopen(Request(f"{self.environment['AWS_ENDPOINT_URL']}/{name}", method="PUT")).close()
        return f"s3://{name}/some/prefix"

    def stop(self) -> None:
        """Kills the server: clients then cannot connect."""
        self._process.kill()
        self._process.wait()

    def _started(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self._port)],
            env={**os.environ, **self._settings},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        pause, left_s = threading.Event(), _START_S
        while not self._answers():
            left_s -= 0.05
            if left_s < 0 or process.poll() is not None:
                process.kill()
                raise RuntimeError(f"the S3 server did not start within {_START_S} s")
            pause.wait(0.05)
        return process

    def _answers(self) -> bool:
        try:
            urlopen(f"{self.environment['AWS_ENDPOINT_URL']}/moto-api/", timeout=5).close()
        except HTTPError:
            return True
        except (URLError, OSError):
            return False
        return True


@contextmanager
def s3_server(**settings: str) -> Iterator[S3Server]:
    """Yields a server that runs until the block ends; `settings` are environment variables of moto."""
    server = S3Server(**settings)
    try:
        yield server
    finally:
        server.stop()
