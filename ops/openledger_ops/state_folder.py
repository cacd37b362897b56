"""What the state folder of a platform on this machine says about it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from openledger_client.services import TRAINER
from openledger_ops.event_log import check_url
from servicekit.errors import StartupError

GATE_ITEMS_DIGEST = "gate-items.digest"
DEFAULT_BASE_MODEL = "smollm2-135m-instruct"
_RIGHT = "give --state-dir the folder of a platform, or start one there with `openledger up`"


_MADE_BY_A_PLATFORM = ("run", "issuer", "base-models")


def require_platform(state_dir: Path) -> None:
    """Raises StartupError where no platform ever ran: writing there would begin a second one beside the one that is meant."""
    if not any((state_dir / part).exists() for part in _MADE_BY_A_PLATFORM):
        raise StartupError(f"no platform in {state_dir}: {_RIGHT}")


def existing_part(state_dir: Path, part: str) -> Path:
    """Returns the path of what a platform made in its state folder. Raises StartupError when it is not there."""
    path = state_dir / part
    if not path.exists():
        raise StartupError(f"no platform in {state_dir} (no {path}): {_RIGHT}")
    return path


def up_settings(state_dir: Path) -> dict[str, str]:
    """Returns the environment that `openledger up` last gave the services of a state folder; {} when it never ran there.

    Raises:
        StartupError: the file that holds it is damaged.
    """
    try:
        found = dict(json.loads((state_dir / "run" / "environment.json").read_text()))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        raise StartupError(f"{state_dir}/run/environment.json cannot be read: {error}") from None
    return found


def base_model(given: str, state_dir: Path) -> str:
    """Returns the base model to run: `given`, else the one that `openledger up` last ran in a state folder, on which its
    models were tuned, else the default."""
    last = up_settings(state_dir).get(TRAINER.variable("base_models"), "")
    return given or (last if last and (state_dir / "base-models" / last).is_file() else DEFAULT_BASE_MODEL)


def gate_items_digest(state_dir: Path) -> str:
    """Returns the digest of the evaluation items that `openledger up` published; "" when there are none."""
    path = state_dir / GATE_ITEMS_DIGEST
    return path.read_text().strip() if path.exists() else ""


def up_address(state_dir: Path, name: str) -> str:
    """Returns the address of a part (`chain`, `ray`, ...) that `openledger up` runs now; "" when none runs here."""
    try:
        addresses = json.loads((state_dir / "run" / "platform.json").read_text())
        return str(addresses[name])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def event_log_url(given: str, state_dir: Path) -> str:
    """Returns the event log to read: `given`, else OPENLEDGER_EVENT_LOG, else the one that `openledger up` last gave its
    services, else the state folder's own.

    Raises:
        StartupError: the URL is wrong, or it is a file that does not exist. Reading must not create it.
    """
    url = (
        given
        or os.environ.get("OPENLEDGER_EVENT_LOG")
        or up_settings(state_dir).get("OPENLEDGER_EVENT_LOG", "")
        or f"embedded:{state_dir / 'events.db'}"
    )
    check_url(url)
    path = url.removeprefix("embedded:")
    if path != url and not Path(path).is_file():
        raise StartupError(
            f"no event log at {path}: give --state-dir the folder of a platform, or --event-log its log"
        )
    return url
