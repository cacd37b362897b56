"""The local Ray head: how `openledger up`, the tests and operators start one.

    python -m finetune.ray_head --state-dir .openledger        # runs it until Ctrl-C

The head is as light as Ray allows: no autoscaler monitor, no log monitor, no prestarted workers, a small object store.
Every call needs the token of `trainer.contract.ray_token`. A head that does not start says why in one line.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from servicekit import private
from servicekit.ports import free_ports
from trainer.contract.ray_token import client_environment

DEFAULT_PORT = 8265
OBJECT_STORE_BYTES = 200_000_000
LOG_BYTES = 10_000_000
_SOCKET_BYTES = len("/s/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
JOB_STOP_WAIT_S = 10
"""Time a job has between SIGTERM and SIGKILL; Ray's own 3 s are too short for a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class RayHead:
    """The command that runs a head in the foreground, and what clients need."""

    argv: list[str]
    environment: dict[str, str]
    """To be added to the environment of the head."""
    session_folder: Path
    """Where Ray keeps its sockets and logs."""
    address: str
    """Of the Jobs API; `OPENLEDGER_TRAINER_RAY_ADDRESS`."""


def ray_head(state_dir: Path, port: int = DEFAULT_PORT, cpus: int | None = None) -> RayHead:
    """Returns how to start a head whose dashboard and Jobs API listen on 127.0.0.1:`port`.

    Makes its token when that is missing.
    """
    session_folder = _session_folder(state_dir)
    (unused,) = free_ports(1)  # Ray needs a port for its client server, which this platform does not use
    argv = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats",
        "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--dashboard-port={port}",
        "--port=0", "--dashboard-agent-listen-port=0",
        "--min-worker-port=0", "--max-worker-port=0", f"--ray-client-server-port={unused}",
        f"--num-cpus={cpus or max(2, os.cpu_count() or 1)}", f"--object-store-memory={OBJECT_STORE_BYTES}",
        f"--temp-dir={session_folder}", "--no-monitor", "--include-log-monitor=False", "--log-color=false",
    ]  # fmt: skip
    environment = {
        **client_environment(state_dir),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray then takes 127.0.0.1 as the address of this machine, so all its processes listen there only; by default they listen
        # on all addresses, in plain text. --node-ip-address=127.0.0.1 alone does not: Ray replaces it by the machine's address.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # Each of Ray's log files, and how many older ones it keeps beside it; its defaults are 512 MB and 5.
        "RAY_ROTATION_MAX_BYTES": str(LOG_BYTES),
        "RAY_ROTATION_BACKUP_COUNT": "1",
        "RAY_JOB_STOP_WAIT_TIME_S": str(JOB_STOP_WAIT_S),
        "RAY_enable_worker_prestart": "0",
        "RAY_prestart_worker_first_driver": "0",
        "RAY_enable_metrics_collection": "0",
        # Ray starts workers at nice 15. A training with two workers starts nine processes: beside three busy ones it took
        # 106 s to start them at nice 0 and more than 269 s at 15, on two cores. A single worker is not nice either.
        "RAY_worker_niceness": "0",
    }
    return RayHead(
        argv=argv,
        environment=environment,
        session_folder=session_folder,
        address=f"http://127.0.0.1:{port}",
    )


def _session_folder(state_dir: Path) -> Path:
    """Returns a path for this state folder alone, short enough for the Unix sockets that Ray puts below it.

    Ray opens its own folder to everyone (mode 0777), so it is inside one that only its owner can enter.
    """
    return private.socket_folder(state_dir, "ray", room=_SOCKET_BYTES) / "s"


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs a local Ray head in the foreground.")
    parser.add_argument("--state-dir", type=Path, default=Path(".openledger"))
    parser.add_argument("--port", type=int, default=DEFAULT_PORT)
    arguments = parser.parse_args()
    private.protect_process()
    head = ray_head(arguments.state_dir, arguments.port)
    os.environ.update(head.environment)  # before Ray is imported: it reads them then
    from ray.scripts.scripts import main as ray

    sys.argv = ["ray", *head.argv[3:]]
    try:
        ray()
    except Exception as error:  # noqa: BLE001 - Ray raises many types; each ends as one line
        # On a busy machine Ray gives up waiting for its own processes; its traceback says no more than this line.
        reason = str(error).strip().partition("\n")[0]
        sys.exit(
            f"Ray did not start at {head.address}: {type(error).__name__}: {reason}; "
            f"its logs are in {head.session_folder}/session_latest/logs"
        )


if __name__ == "__main__":
    main()
