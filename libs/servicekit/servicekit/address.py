"""The address file of a service: it says where the service listens. Written when it is ready, removed when it stops."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from servicekit.files import remove, write_whole

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
"""Hosts that only this machine can reach."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """The endpoints of a running service, each ``host:port``; ``http`` is None for a service without an HTTP API.

    ``host`` may be a wildcard address, as it was bound. Readers on the same machine then connect to 127.0.0.1.
    """

    service: str
    pid: int
    grpc: str
    metrics: str
    http: str | None = None


def is_trustworthy(url: str) -> bool:
    """Returns whether no third party can change what is read from the URL: it uses https, or its host is this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)


def write_address(state_dir: Path, address: Address) -> None:
    """Writes the address atomically to ``state_dir/run/<service>.json``."""
    write_whole(_path(state_dir, address.service), json.dumps(asdict(address), indent=2) + "\n")


def read_address(state_dir: Path, service: str) -> Address | None:
    """Returns the address of a running service; None when it was not started, was stopped, or was killed."""
    try:
        address = Address(**json.loads(_path(state_dir, service).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return address if _is_running(address.pid) else None


def remove_address(state_dir: Path, service: str, pid: int) -> None:
    """Removes the address file of this process. The file of a newer process stays."""
    address = read_address(state_dir, service)
    if address is not None and address.pid == pid:
        remove(_path(state_dir, service))


def _path(state_dir: Path, service: str) -> Path:
    return state_dir / "run" / f"{service}.json"


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
