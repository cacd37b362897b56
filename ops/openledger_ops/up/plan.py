"""What runs: the command and environment of each program, written as a supervisor configuration."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from openledger_client import services
from openledger_client.services import TRAINER, Service
from openledger_ops.up.local_settings import SETTINGS
from openledger_ops.up.ports import Ports
from servicekit import private
from servicekit.errors import StartupError

CHAIN_ID = 31337


@dataclass(frozen=True, kw_only=True)
class Program:
    """One process."""

    name: str
    command: tuple[str, ...]
    priority: int
    environment: dict[str, str] = field(default_factory=dict)
    stop_wait_s: int = 20


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything `openledger up` starts."""

    state_dir: Path
    ports: Ports
    base_model: str
    event_log: str
    chain_state: Path
    environment: dict[str, str]

    def programs(self) -> list[Program]:
        """Returns the programs in the order in which they start."""
        found = [self._anvil(), self._ray()]
        for service in services.ALL:
            command = (sys.executable, "-m", service.module)
            environment = self._service(service)
            found.append(Program(name=service.name, command=command, priority=20, environment=environment))
        return found

    @property
    def base_marker(self) -> Path:
        """File that holds the digest of the published base model."""
        return self.state_dir / "base-models" / self.base_model

    def base_digest(self) -> str:
        """Returns the digest of the published base model; "" until it is published."""
        return self.base_marker.read_text().strip() if self.base_marker.exists() else ""

    @property
    def rpc(self) -> str:
        """JSON-RPC address of the chain."""
        return f"http://127.0.0.1:{self.ports.anvil}"

    @property
    def ray_address(self) -> str:
        """Address of Ray's job server."""
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
        return Program(name="anvil", command=command, priority=10)

    def _ray(self) -> Program:
        head = TRAINER.programs["ray head"]
        options = ("--state-dir", str(self.state_dir), "--port", str(self.ports.ray))
        command = (sys.executable, "-m", head, *options)
        return Program(name="ray", command=command, priority=10, stop_wait_s=30)

    def _service(self, service: Service[object]) -> dict[str, str]:
        ports = {
            "grpc_port": str(self.ports.grpc[service.name]),
            "metrics_port": str(self.ports.metrics[service.name]),
        }
        if service.http:
            ports["http_port"] = str(self.ports.http[service.name])
        own = SETTINGS[service](self) if service in SETTINGS else {}
        found = {service.variable(name): value for name, value in own.items()}
        # What the operator sets wins, except for ports: others find the service there.
        given = {name: self.environment[name] for name in found if name in self.environment}
        return found | given | {service.variable(name): value for name, value in ports.items()}

    def shared_environment(self) -> dict[str, str]:
        """Returns the environment of every program."""
        found = {
            "OPENLEDGER_STATE_DIR": str(self.state_dir),
            "OPENLEDGER_AUTH_MODE": "development",
            "PYTHONUNBUFFERED": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "OMP_WAIT_POLICY": "PASSIVE",  # waiting threads must not take cores from working ones
            **self.environment,
        }
        if self.event_log:
            found["OPENLEDGER_EVENT_LOG"] = self.event_log
        return found

    def settings(self) -> dict[str, str]:
        """Returns the environment of all services together, for tools that work on the same state."""
        found = self.shared_environment()
        for program in self.programs():
            found |= program.environment
        return found

    def configuration(self) -> str:
        """Returns the supervisor configuration."""
        socket = supervisor_socket(self.state_dir)
        lines = [
            "[supervisord]",
            "umask=077",
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
        # One group: all programs stop at the same time, so none waits for another's grace period.
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
                # Every program writes to the supervisor's output, which `openledger up` shows as one log.
                "stdout_logfile=/dev/fd/1",
                "stdout_logfile_maxbytes=0",
                f"environment={_environment({**program.environment, 'OPENLEDGER_PROGRAM': program.name})}",
            ]
        return "\n".join(lines) + "\n"


def supervisor_socket(state_dir: Path) -> Path:
    """Returns the socket of a state folder's supervisord.

    A socket's path has at most 107 bytes. supervisord binds a longer one first, with its own process id at the end.
    """
    return private.socket_folder(state_dir, "run", room=len("/supervisor.sock.4194304")) / "supervisor.sock"


def find_anvil() -> Path:
    """Returns the anvil binary that npm installed, or OPENLEDGER_ANVIL.

    Raises:
        StartupError: there is none; the line says how to get it.
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
    """Escapes what supervisor reads: quotes, and % for its %(...)s."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
