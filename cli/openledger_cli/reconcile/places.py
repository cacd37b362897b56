"""Where a platform's state is: from the same settings as its services read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import make_url

from openledger_cli.connection import SERVICES
from servicekit.errors import StartupError
from servicekit.settings import ServiceSettings


class _Datanet(ServiceSettings):
    service: ClassVar[str] = "datanet"


class _Trainer(ServiceSettings):
    service: ClassVar[str] = "trainer"


class _Inference(ServiceSettings):
    service: ClassVar[str] = "inference"
    wal_dir: Path | None = None


class _Attribution(ServiceSettings):
    service: ClassVar[str] = "attribution"


class _ChainRelay(ServiceSettings):
    service: ClassVar[str] = "chain_relay"
    rpc_url: str = ""
    contracts_file: Path | None = None


@dataclass(frozen=True)
class Places:
    """Everything a reconciler reads."""

    databases: dict[str, str]
    """SQLAlchemy URL by service."""
    event_log: str
    object_store: str
    objects_cache: Path
    answer_log: Path
    """Folder of the inference service's write-ahead log."""
    rpc: str
    """JSON-RPC address of the chain; "" leaves the chain out."""
    contracts: Path


def places(state_dir: Path, rpc: str | None = None) -> Places:
    """The places of the platform whose state is in `state_dir`, as the environment names them; `rpc` wins over it.

    Raises:
        StartupError: a setting is wrong, or a service never ran here.
    """
    given: dict[str, Any] = {"state_dir": state_dir, "auth_mode": "development"}
    inference, relay = _Inference.load(**given), _ChainRelay.load(**given)
    settings = [_Datanet.load(**given), _Trainer.load(**given), inference, _Attribution.load(**given), relay]
    for one in settings:
        _require_database(one.service, one.database_url)
    return Places(
        databases={one.service: one.database_url for one in settings},
        event_log=relay.event_log,
        object_store=relay.object_store,
        objects_cache=state_dir / "cache" / "objects",
        answer_log=inference.wal_dir or state_dir / "inference" / "wal",
        rpc=relay.rpc_url if rpc is None else rpc,
        contracts=relay.contracts_file or state_dir / "chain" / "contracts.json",
    )


def last_settings(state_dir: Path) -> dict[str, str]:
    """The environment that `openledger up` last gave the services of this folder; {} when it never ran."""
    try:
        found: dict[str, str] = json.loads((state_dir / "run" / "environment.json").read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StartupError(f"{state_dir}/run/environment.json cannot be read: {error}") from None
    return found


def _require_database(service: str, url: str) -> None:
    """Looking must not make an empty database where there is none."""
    assert service in SERVICES
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").is_file():
        raise StartupError(
            f"{service} has no database at {parsed.database}: give --state-dir the folder of a platform,"
            f" or set OPENLEDGER_{service.upper()}_DATABASE_URL"
        )
