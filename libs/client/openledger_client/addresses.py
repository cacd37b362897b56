"""Where services listen: given by the program, by the environment, or by the address file of a local platform."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from openledger_client.errors import ConfigurationError
from openledger_client.services import ALL, Service

DEFAULT_STATE_DIR = Path(".openledger")
"""State folder of `openledger up`, when nothing else is given."""


@dataclass(frozen=True, kw_only=True)
class ServiceAddress:
    """Endpoints of one service, each as `host:port`; "" where it has none or where it is not known."""

    grpc: str
    http: str = ""
    metrics: str = ""
    pid: int = 0
    """Process id, when the service runs on this machine; else 0."""


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """Finds a service: in `given`, in `OPENLEDGER_<SERVICE>_ADDRESS`, or in `state_dir/run/<service>.json`, in this order."""

    state_dir: Path = DEFAULT_STATE_DIR
    given: Mapping[str, str] = field(default_factory=dict)
    """gRPC addresses by service name."""

    def __post_init__(self) -> None:
        """Raises ConfigurationError for a name in `given` that no service has: its address would never be used."""
        names = [service.name for service in ALL]
        if unknown := [repr(name) for name in self.given if name not in names]:
            raise ConfigurationError(
                f"no service is named {', '.join(unknown)}; the services are {', '.join(names)}",
                reason="UNKNOWN_SERVICE",
            )

    @classmethod
    def from_environment(cls, state_dir: Path | None = None) -> Addresses:
        """Returns addresses for `state_dir`, else for `OPENLEDGER_STATE_DIR`, else for `.openledger`."""
        return cls(state_dir=state_dir or Path(os.environ.get("OPENLEDGER_STATE_DIR") or DEFAULT_STATE_DIR))

    def of(self, service: Service[object]) -> ServiceAddress:
        """Returns the endpoints of a service.

        Raises:
            ConfigurationError: what is given is a URL; or nothing is given, and no process of this machine serves it.
        """
        variable = service.variable("address")
        given = self.given.get(service.name) or os.environ.get(variable)
        if given:
            if given.startswith(("http://", "https://")):
                raise ConfigurationError(
                    f"the address of {service} is {given!r} ({variable}): it must be host:port, without http://",
                    reason="ADDRESS_FORMAT",
                )
            return ServiceAddress(grpc=given)
        path = address_file(self.state_dir, service)
        found = read_address(path)
        if found is None:
            raise ConfigurationError(
                f"{service} is not running here (no {path}): start `openledger up`, or set {variable}=host:port",
                reason="NO_ADDRESS",
            )
        if not _is_running(found.pid):
            raise ConfigurationError(
                f"{service} is not running: {path} names process {found.pid}, which has ended;"
                f" start `openledger up`, or set {variable}=host:port",
                reason="NO_ADDRESS",
            )
        return found


def address_file(state_dir: Path, service: Service[object]) -> Path:
    """Returns the file in which a service of this machine publishes its endpoints."""
    return state_dir / "run" / f"{service.name}.json"


def read_address(path: Path) -> ServiceAddress | None:
    """Returns what an address file says; None when there is none.

    Raises:
        ConfigurationError: the file cannot be read, or is no address file.
    """
    try:
        found = json.loads(path.read_text())
        if int(found["pid"]) <= 0:
            raise ValueError("no process id")
        return ServiceAddress(
            grpc=str(found["grpc"]),
            http=str(found.get("http") or ""),
            metrics=str(found.get("metrics") or ""),
            pid=int(found["pid"]),
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
    except (ValueError, TypeError, KeyError, AttributeError):
        why = "is corrupt: it is no address file of a service"
    raise ConfigurationError(
        f"{path} {why}; restart the service, which writes it, or set OPENLEDGER_{path.stem.upper()}_ADDRESS=host:port",
        reason="ADDRESS_FILE",
    )


def _is_running(pid: int) -> bool:
    if pid <= 0:  # 0 and below name process groups
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
