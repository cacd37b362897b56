"""The local Ray head: one place that says how it is started, for `openledger up`, tests and people.

    python -m trainer.ray_head --state-dir .openledger        # runs it until Ctrl-C

As light as Ray allows: no autoscaler monitor, no log monitor, no prestarted workers, a small object store.
Every call needs a token, made once below the state folder: Ray binds to the machine's address even when told
not to, and whoever may submit a job may run anything.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import secrets
import socket
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from servicekit import crash

DEFAULT_PORT = 8265
OBJECT_STORE_BYTES = 200_000_000
JOB_STOP_WAIT_S = 10
"""Time a job has between SIGTERM and SIGKILL; Ray's own 3 s are too short for a checkpoint."""


@dataclass(frozen=True)
class RayHead:
    """The command that runs a head in the foreground, and what clients need."""

    argv: list[str]
    environment: dict[str, str]
    """To be added to the environment of the head."""
    address: str
    """Of the Jobs API; `OPENLEDGER_TRAINER_RAY_ADDRESS`."""


def token_file(state_dir: Path) -> Path:
    """Where the head's token is kept."""
    return state_dir.absolute() / "ray" / "token"


def client_environment(state_dir: Path) -> dict[str, str]:
    """What a process needs in its environment, before it imports ray, to talk to this head.

    Makes the token when it is missing: a client may start before its head.
    """
    path = token_file(state_dir)
    _ensure_token(path)
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}


def ray_head(state_dir: Path, port: int = DEFAULT_PORT, cpus: int | None = None) -> RayHead:
    """How to start a head whose dashboard and Jobs API listen on 127.0.0.1:`port`. Makes its token when
    missing."""
    _ensure_token(token_file(state_dir))
    argv = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats",
        "--dashboard-host=127.0.0.1", f"--dashboard-port={port}", "--port=0", "--dashboard-agent-listen-port=0",
        "--min-worker-port=0", "--max-worker-port=0", f"--ray-client-server-port={_free_port()}",
        f"--num-cpus={cpus or max(2, os.cpu_count() or 1)}", f"--object-store-memory={OBJECT_STORE_BYTES}",
        f"--temp-dir={_session_folder(state_dir)}", "--no-monitor", "--include-log-monitor=False",
    ]  # fmt: skip
    environment = {
        **client_environment(state_dir),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_JOB_STOP_WAIT_TIME_S": str(JOB_STOP_WAIT_S),
        "RAY_enable_worker_prestart": "0",
        "RAY_prestart_worker_first_driver": "0",
        "RAY_enable_metrics_collection": "0",
    }
    return RayHead(argv, environment, f"http://127.0.0.1:{port}")


def _ensure_token(path: Path) -> None:
    """Written once, readable by its owner only; two starters at once end with one token."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        return
    partial = path.with_name(f".{secrets.token_hex(8)}")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    try:
        with crash.step("token"):
            os.link(partial, path)
    except FileExistsError:
        pass
    finally:
        partial.unlink()


def _session_folder(state_dir: Path) -> Path:
    """A short path of this state folder's own: Ray puts Unix sockets there, whose paths end at 107 bytes."""
    name = hashlib.sha256(str(state_dir.absolute()).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"openledger-ray-{name}"


def _free_port() -> int:
    """Ray insists on a port for a client server that nobody here uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs a local Ray head in the foreground.")
    parser.add_argument("--state-dir", type=Path, default=Path(".openledger"))
    parser.add_argument("--port", type=int, default=DEFAULT_PORT)
    arguments = parser.parse_args()
    head = ray_head(arguments.state_dir, arguments.port)
    os.execve(head.argv[0], head.argv, {**os.environ, **head.environment})


if __name__ == "__main__":
    main()
