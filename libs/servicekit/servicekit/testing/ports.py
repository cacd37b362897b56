"""For tests: ports that no other test takes before a server listens on them."""

from __future__ import annotations

import fcntl
import os
import random
import tempfile
from pathlib import Path

from servicekit.ports import is_free

_FIRST, _LAST = 10_000, 19_999
"""The system gives none of them to a connection or to port 0, nor does `openledger up` choose them."""

_claims: list[int] = []
"""Open lock files: the kernel releases them when this process ends, however it does."""


def claimed_port() -> int:
    """Returns a free port that is this process's own until it ends: no test process of the machine gets it again."""
    folder = Path(tempfile.gettempdir()) / f"openledger-test-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for port in random.SystemRandom().sample(range(_FIRST, _LAST + 1), _LAST + 1 - _FIRST):
        claim = os.open(folder / str(port), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(claim)
            continue
        if is_free(port):
            _claims.append(claim)
            return port
        os.close(claim)
    raise OSError(f"no port from {_FIRST} to {_LAST} is free")
