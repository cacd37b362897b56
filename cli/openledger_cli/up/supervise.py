"""Runs a plan under supervisord: one log view, restarts, a readiness line, a clean end."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
import xmlrpc.client
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from supervisor.xmlrpc import SupervisorTransport

from openledger_cli.connection import SERVICES
from openledger_cli.up.health import pending_doors
from openledger_cli.up.logview import LogView
from openledger_cli.up.plan import Plan
from servicekit.errors import StartupError
from servicekit.files import write_whole

STOP_S = 60.0
"""Longest time that the programs have to end before they are killed."""
START_S = 180.0
"""Longest time that the platform has to become ready."""
REVIVE_EVERY_S = 5.0
"""How often a platform that was ready looks for programs that supervisord has given up."""


@dataclass
class Supervisor:
    """supervisord with its programs."""

    plan: Plan
    view: LogView
    stopping: threading.Event
    _revive_at: float = 0.0

    def run(self, when_ready: Callable[[], None]) -> int:
        """Starts everything, calls `when_ready` once all doors answer, blocks until told to stop. Returns the exit code.

        Raises:
            StartupError: another platform runs on this state folder.
        """
        state = self.plan.state_dir
        for name in ("run", "logs", "chain"):
            (state / name).mkdir(parents=True, exist_ok=True)
        lock = _lock(state / "run" / "up.lock")
        for service in (*SERVICES, "platform"):  # left by a platform that was killed
            (state / "run" / f"{service}.json").unlink(missing_ok=True)
        config = state / "run" / "supervisord.conf"
        _write_private(config, self.plan.configuration())
        _write_private(state / "run" / "environment.json", json.dumps(self.plan.settings(), indent=1))
        process = subprocess.Popen(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # The terminal's Ctrl-C is for us alone: we stop the programs in order. And should we be killed, they stop too.
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        assert process.stdout is not None
        reader = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        reader.start()
        try:
            return self._watch(process, when_ready)
        finally:
            _end(process)
            reader.join(timeout=5)
            self.plan.supervisor_socket().unlink(missing_ok=True)
            for service in (
                *SERVICES,
                "platform",
            ):  # a program that had to be killed could not remove its own
                (state / "run" / f"{service}.json").unlink(missing_ok=True)
            lock.close()

    def _watch(self, process: subprocess.Popen[str], when_ready: Callable[[], None]) -> int:
        ready, waited = False, 0.0
        while not self.stopping.wait(0.25):
            if process.poll() is not None:
                raise StartupError(
                    f"the supervisor ended with {process.returncode}: see {self.plan.state_dir}/logs/platform.log"
                )
            if ready:
                self._revive()
                continue
            waited += 0.25
            self._refuse_fatal()
            missing = pending_doors(self.plan)
            if not missing:
                ready = True
                write_whole(self.plan.state_dir / "run" / "platform.json", json.dumps(doors_of(self.plan)))
                when_ready()
            elif waited > START_S:
                raise StartupError(
                    f"not ready after {START_S:.0f} s: {', '.join(missing)}; see {self.plan.state_dir}/logs/platform.log"
                )
        return 0

    def _refuse_fatal(self) -> None:
        """A program that keeps ending at its start will not get better: say so instead of waiting."""
        try:
            processes = processes_of(self.plan.supervisor_socket())
        except (OSError, xmlrpc.client.Error):
            return
        dead = [str(p["name"]) for p in processes if p["statename"] == "FATAL"]
        if dead:
            last = "; ".join(f"{name}: {self.view.last_line(name)}" for name in dead)
            raise StartupError(f"cannot start {last}")

    def _revive(self) -> None:
        """Starts what supervisord has given up. A platform that was ready is well configured: what a program lacked, a
        database say, was away for longer than supervisord's few tries."""
        if time.monotonic() < self._revive_at:
            return
        self._revive_at = time.monotonic() + REVIVE_EVERY_S
        try:
            for process in processes_of(self.plan.supervisor_socket()):
                if process["statename"] == "FATAL":
                    name = f"{process['group']}:{process['name']}"
                    self.view.show(
                        json.dumps({"service": "up", "message": f"starting {process['name']} again"})
                    )
                    supervisor_of(self.plan.supervisor_socket()).startProcess(name, False)
        except (OSError, xmlrpc.client.Error):
            return  # looked at again

    def _read(self, stream: IO[str]) -> None:
        with (self.plan.state_dir / "logs" / "platform.log").open("a", encoding="utf-8") as log:
            for line in stream:
                log.write(line)
                log.flush()
                self.view.show(line.rstrip("\n"))


def _write_private(path: Path, text: str) -> None:
    """For the owner's eyes alone: settings may hold a database's password."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text)


def processes_of(socket: Path) -> list[dict[str, Any]]:
    """What supervisord says of its programs: name, statename, pid. Raises OSError when it does not answer."""
    return list(supervisor_of(socket).getAllProcessInfo())


def supervisor_of(socket: Path) -> Any:
    """supervisord's own interface (supervisord.org, XML-RPC API). Its methods raise OSError, xmlrpc.client.Error."""
    proxy = xmlrpc.client.ServerProxy(
        "http://127.0.0.1", transport=SupervisorTransport(None, None, f"unix://{socket}")
    )
    return proxy.supervisor


def _lock(path: Path) -> IO[str]:
    """Holds a state folder for one platform. Raises StartupError when another one has it."""
    handle = path.open("a+")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StartupError(
            f"a platform runs on {path.parent.parent} already: stop it, or give --state-dir another folder"
        ) from None
    return handle


def _die_with_parent() -> None:
    """Linux: SIGTERM when the parent dies however it dies, so that kill -9 of `openledger up` leaves no process behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _end(process: subprocess.Popen[str]) -> None:
    """Ends supervisord and with it every program; kills what does not end in time."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def doors_of(plan: Plan) -> dict[str, str]:
    """Every address, by name."""
    doors = {service: f"127.0.0.1:{port}" for service, port in plan.ports.grpc.items()}
    doors |= {"openai": f"http://127.0.0.1:{plan.ports.http}/v1", "chain": plan.rpc, "ray": plan.ray_address}
    doors |= {
        f"{service}/metrics": f"http://127.0.0.1:{port}/metrics"
        for service, port in plan.ports.metrics.items()
    }
    return doors


def readiness_line(plan: Plan) -> str:
    """Every address in one line, for people and scripts."""
    return json.dumps({"event": "ready", "service": "platform", "doors": doors_of(plan)})
