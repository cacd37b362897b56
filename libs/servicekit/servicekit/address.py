"""Where a service of this machine listens: a small file that it writes when it is ready and removes when it stops."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from servicekit.files import remove, write_whole

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
"""Hosts that only this machine reaches."""


@dataclass(frozen=True)
class Address:
    """A running service's doors, each ``host:port``; ``http`` only where it has one.

    ``host`` may be a wildcard address as it was bound; readers on the same machine reach it by 127.0.0.1.
    """

    service: str
    pid: int
    grpc: str
    metrics: str
    http: str | None = None


def is_trustworthy(url: str) -> bool:
    """Whether nobody on the way can change what is read there: https, or this very machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)


def write_address(state_dir: Path, address: Address) -> None:
    """Publishes it atomically in ``state_dir/run/<service>.json``."""
    write_whole(_path(state_dir, address.service), json.dumps(asdict(address), indent=2) + "\n")


def read_address(state_dir: Path, service: str) -> Address | None:
    """The address of a service whose process lives; none when it was not started, stopped, or was killed."""
    try:
        address = Address(**json.loads(_path(state_dir, service).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return address if _lives(address.pid) else None


def remove_address(state_dir: Path, service: str, pid: int) -> None:
    """Removes the file of that process; a successor's stays."""
    address = read_address(state_dir, service)
    if address is not None and address.pid == pid:
        remove(_path(state_dir, service))


def _path(state_dir: Path, service: str) -> Path:
    return state_dir / "run" / f"{service}.json"


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
