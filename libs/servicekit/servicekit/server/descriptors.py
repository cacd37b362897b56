"""File descriptors of a process: as many as the system allows, and a part of them reserved."""

from __future__ import annotations

import resource

RESERVED = 512
"""For the database, the event log, the object store, files, and /metrics."""
_MOST = 1 << 16


def raise_descriptor_limit() -> int:
    """Raises the limit of open files to what the system allows this process, and returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        return allowed
    return allowed if soft == resource.RLIM_INFINITY else soft


def for_http(wanted: int) -> int:
    """Returns how many connections the HTTP server may have: at most a quarter of the descriptors that there are."""
    return max(16, min(wanted, _available() // 4))


def for_grpc(http: int) -> int:
    """Returns how many connections the gRPC server may have: what HTTP and the reserve leave.

    gRPC cannot count by address. It closes connections that say nothing within seconds, so the more there may be meanwhile,
    the more it takes to keep others out.
    """
    return max(16, _available() - for_http(http))


def _available() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else max(0, soft - RESERVED)
