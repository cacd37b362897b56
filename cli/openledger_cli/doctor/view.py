"""A service as its public doors show it: gRPC health, /readyz, /metrics."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from openledger_cli.connection import tls_of_environment
from openledger_cli.doctor.samples import Samples
from openledger_cli.up.health import serving

_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class ServiceView:
    """One look at a service. What could not be seen is None."""

    service: str
    address: str = ""
    """Of its gRPC door; "" when nobody knows it."""
    absent: str = ""
    """Why the address is not known."""
    serving: bool = False
    """What gRPC health says."""
    operations: str = ""
    """Address of /readyz and /metrics; "" when nobody knows it."""
    ready: Mapping[str, Any] | None = None
    """What /readyz answers."""
    skew_s: float | None = None
    """Its clock less ours, to about a second."""
    samples: Samples | None = None
    unseen: str = ""
    """Why /readyz or /metrics could not be read."""


def look(service: str, grpc_address: str, operations: str) -> ServiceView:
    """Asks a service's doors; never raises for what they answer."""
    alive = serving(grpc_address, _TIMEOUT_S, tls_of_environment())
    if not operations:
        return ServiceView(service, grpc_address, serving=alive)
    try:
        with httpx.Client(base_url=f"http://{operations}", timeout=_TIMEOUT_S, trust_env=False) as client:
            begun = time.time()
            readiness = client.get("/readyz")
            ours = (begun + time.time()) / 2
            scrape = client.get("/metrics").raise_for_status()
        return ServiceView(
            service,
            grpc_address,
            serving=alive,
            operations=operations,
            ready=dict(readiness.json()),
            skew_s=_skew_s(readiness.headers.get("date"), ours),
            samples=Samples(scrape.text),
        )
    except (httpx.HTTPError, ValueError) as error:
        return ServiceView(
            service,
            grpc_address,
            serving=alive,
            operations=operations,
            unseen=str(error) or type(error).__name__,
        )


def _skew_s(date: str | None, ours: float) -> float | None:
    """HTTP dates are cut to whole seconds: half of one is the best guess of what is missing."""
    return None if date is None else parsedate_to_datetime(date).timestamp() + 0.5 - ours
