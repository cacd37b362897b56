"""A service as its public endpoints show it: gRPC health, /readyz, /metrics."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from openledger_client.tls import Tls
from openledger_ops.doctor.samples import Samples
from openledger_ops.health import serving
from servicekit.http_client import HttpClient

_TIMEOUT_S = 5.0
_MAX_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What one service showed. What could not be read is None."""

    service: str
    address: str = ""
    """Of its gRPC API; "" when it is not known."""
    absent: str = ""
    """Why the address is not known."""
    serving: bool = False
    """What gRPC health says."""
    operations: str = ""
    """Address of /readyz and /metrics; "" when it is not known."""
    ready: Mapping[str, Any] | None = None
    """What /readyz answers."""
    skew_s: float | None = None
    """Its clock less this machine's, to about a second."""
    samples: Samples | None = None
    unread: str = ""
    """Why /readyz or /metrics could not be read."""


def observe(service: str, grpc_address: str, operations: str, tls: Tls | None = None) -> Observation:
    """Returns what a service's endpoints answer; raises nothing, whatever they answer."""
    seen = Observation(
        service=service,
        address=grpc_address,
        serving=serving(grpc_address, _TIMEOUT_S, tls),
        operations=operations,
    )
    if not operations:
        return seen
    try:
        client = HttpClient(_TIMEOUT_S, _MAX_BYTES)
        begun = time.time()
        readiness = client.exchange("GET", f"http://{operations}/readyz")
        here = (begun + time.time()) / 2
        scrape = client.exchange("GET", f"http://{operations}/metrics")
        client.close()
        if scrape.status != HTTPStatus.OK:
            raise ValueError(f"/metrics answers {scrape.status}")
        return replace(
            seen,
            ready=_readiness(readiness.body),
            skew_s=_skew_s(readiness.headers.get("date"), here),
            samples=Samples(scrape.body.decode()),
        )
    except (OSError, ValueError, TypeError) as error:
        return replace(seen, unread=str(error) or type(error).__name__)


def _readiness(body: bytes) -> Mapping[str, Any]:
    """Returns what /readyz answers. Raises ValueError for what is not the answer of a service: another program has the port."""
    found: Any = json.loads(body)
    parts = [*found.get("loops", []), *found.get("warnings", [])] if isinstance(found, dict) else [None]
    if not all(isinstance(part, dict) for part in parts):
        raise ValueError("/readyz does not answer as a service does")
    for loop in found.get("loops", []):
        float(loop.get("for_s", 0.0))
    return dict(found)


def _skew_s(date: str | None, here: float) -> float | None:
    """HTTP dates are cut to whole seconds: half a second is the best estimate of the rest."""
    return None if date is None else parsedate_to_datetime(date).timestamp() + 0.5 - here
