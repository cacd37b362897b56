"""What runs: each program's command and environment, written as a supervisor configuration."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from openledger_cli.connection import SERVICES
from openledger_cli.up.ports import Ports
from servicekit.errors import StartupError

CHAIN_ID = 31337


@dataclass(frozen=True)
class Program:
    """One process."""

    name: str
    command: tuple[str, ...]
    priority: int
    environment: dict[str, str] = field(default_factory=dict)
    stop_wait_s: int = 20


@dataclass(frozen=True)
class Plan:
    """Everything `openledger up` starts."""

    state_dir: Path
    ports: Ports
    base_model: str
    event_log: str
    chain_state: Path
    environment: dict[str, str]

    def programs(self) -> list[Program]:
        """Programs in the order they start."""
        found = [self._anvil(), self._ray()]
        for service in SERVICES:
            found.append(Program(service, (sys.executable, "-m", service), 20, self._service(service)))
        return found

    @property
    def base_marker(self) -> Path:
        """Where the published base model's digest is kept."""
        return self.state_dir / "base-models" / self.base_model

    def base_digest(self) -> str:
        """Digest of the published base model; "" until it is published."""
        return self.base_marker.read_text().strip() if self.base_marker.exists() else ""

    @property
    def rpc(self) -> str:
        """The chain's JSON-RPC address."""
        return f"http://127.0.0.1:{self.ports.anvil}"

    @property
    def ray_address(self) -> str:
        """Ray's job server."""
        return f"http://127.0.0.1:{self.ports.ray}"

    def _anvil(self) -> Program:
        # One block a second and two slots an epoch: safe and finalized follow latest within seconds, as on an L2, only faster.
        command = (
            str(find_anvil()),
            "--host",
            "127.0.0.1",
            "--port",
            str(self.ports.anvil),
            "--chain-id",
            str(CHAIN_ID),
            "--block-time",
            "1",
            "--slots-in-an-epoch",
            "2",
            "--state",
            str(self.chain_state),
            "--state-interval",
            "1",
            "--silent",
        )
        return Program("anvil", command, 10)

    def _ray(self) -> Program:
        command = (
            sys.executable, "-m", "trainer.ray_head", "--state-dir", str(self.state_dir), "--port", str(self.ports.ray)
        )  # fmt: skip
        return Program("ray", command, 10, stop_wait_s=30)

    def _service(self, service: str) -> dict[str, str]:
        own = f"OPENLEDGER_{service.upper()}_"
        found = {
            own + "GRPC_PORT": str(self.ports.grpc[service]),
            own + "METRICS_PORT": str(self.ports.metrics[service]),
        }
        if service == "inference":
            found[own + "HTTP_PORT"] = str(self.ports.http)
            found[own + "BASE_MODEL"] = self.base_digest() or self.base_model  # published already: not again
        if service == "trainer":
            found[own + "RAY_ADDRESS"] = self.ray_address
            found[own + "BASE_MODELS"] = self.base_model
        if service == "chain_relay":
            found[own + "RPC_URL"] = self.rpc
            found[own + "CHAIN_DEPLOY"] = "development"
            found[own + "POLL_INTERVAL_S"] = (
                "1"  # a block a second: looking more often only costs processor time
            )
        return found

    def shared_environment(self) -> dict[str, str]:
        """What every program gets."""
        found = {
            "OPENLEDGER_STATE_DIR": str(self.state_dir),
            "OPENLEDGER_AUTH_MODE": "development",
            "PYTHONUNBUFFERED": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "OMP_WAIT_POLICY": "PASSIVE",  # threads that wait must not take the cores that others need
            **self.environment,
        }
        if self.event_log:
            found["OPENLEDGER_EVENT_LOG"] = self.event_log
        return found

    def settings(self) -> dict[str, str]:
        """Everything that services are told, for tools that look at the same state. A variable belongs to one service."""
        found = self.shared_environment()
        for program in self.programs():
            found |= program.environment
        return found

    def supervisor_socket(self) -> Path:
        """Where this plan's supervisord listens."""
        return supervisor_socket(self.state_dir)

    def configuration(self) -> str:
        """The supervisor configuration."""
        socket = self.supervisor_socket()
        lines = [
            "[supervisord]",
            "nodaemon=true",
            "silent=true",
            f"logfile={self.state_dir}/logs/supervisord.log",
            "logfile_maxbytes=5MB",
            "logfile_backups=1",
            f"pidfile={self.state_dir}/run/supervisord.pid",
            f"environment={_environment(self.shared_environment())}",
            "[unix_http_server]",
            f"file={socket}",
            "chmod=0700",
            "[rpcinterface:supervisor]",
            "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface",
        ]
        # One group, so that all are told to stop at once and none waits for another's grace.
        lines += ["[group:platform]", "programs=" + ",".join(program.name for program in self.programs())]
        for program in self.programs():
            lines += [
                f"[program:{program.name}]",
                f"command={_command(program.command)}",
                f"priority={program.priority}",
                "autostart=true",
                "autorestart=true",
                "startsecs=1",
                "startretries=5",
                "stopsignal=TERM",
                f"stopwaitsecs={program.stop_wait_s}",
                "killasgroup=true",
                "redirect_stderr=true",
                # One log view: every program writes to the supervisor's own output, which `openledger up` shows.
                "stdout_logfile=/dev/fd/1",
                "stdout_logfile_maxbytes=0",
                f"environment={_environment({**program.environment, 'OPENLEDGER_PROGRAM': program.name})}",
            ]
        return "\n".join(lines) + "\n"


def supervisor_socket(state_dir: Path) -> Path:
    """Where the supervisord of a state folder listens. Under the temporary folder: a socket's path holds 107 bytes at most."""
    name = hashlib.sha256(str(state_dir).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"openledger-{os.getuid()}-{name}.sock"


def find_anvil() -> Path:
    """The anvil binary that npm installed, or OPENLEDGER_ANVIL.

    Raises:
        StartupError: one line on how to get it.
    """
    given = os.environ.get("OPENLEDGER_ANVIL")
    candidates = [Path(given)] if given else []
    for root in (Path.cwd(), *Path(__file__).resolve().parents):
        candidates += sorted((root / "node_modules" / "@foundry-rs").glob("anvil-*/bin/anvil"))
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    raise StartupError("anvil is missing: run `make setup`, or set OPENLEDGER_ANVIL to its path")


def _environment(values: dict[str, str]) -> str:
    return ",".join(f'{key}="{_escaped(value)}"' for key, value in sorted(values.items()))


def _command(words: tuple[str, ...]) -> str:
    return " ".join(f'"{_escaped(word)}"' for word in words)


def _escaped(text: str) -> str:
    """supervisor expands %(...)s and reads quotes."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
