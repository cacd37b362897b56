"""Runs a plan under supervisord: one log, restarts, a readiness line, an orderly stop."""

from __future__ import annotations

import ctypes
import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import xmlrpc.client
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO, Any

from supervisor.xmlrpc import SupervisorTransport

from openledger_client import services
from openledger_ops.health import answers, listens, serving
from openledger_ops.up.log_view import LogView
from openledger_ops.up.plan import Plan, supervisor_socket
from servicekit import private
from servicekit.errors import StartupError
from servicekit.files import write_whole

STOP_S = 60.0
"""Longest time that programs have to stop before they are killed."""
START_S = 600.0
"""Longest time that the platform has to become ready: a busy machine needs minutes. A program that keeps exiting is
reported at once."""
REPORT_EVERY_S = 30.0
"""How often a platform that is not ready yet reports what it waits for."""
LOG_BYTES = 20_000_000
LOG_BACKUPS = 3
LOG_LINE = 65_536
"""Characters of a line; a longer one becomes several."""
RESTART_EVERY_S = 5.0
"""How often a platform that was ready checks for programs that supervisord has given up."""


@dataclass(kw_only=True)
class Supervisor:
    """supervisord with its programs."""

    plan: Plan
    view: LogView
    stopping: threading.Event
    _restart_at: float = 0.0

    def run(self, when_ready: Callable[[], None]) -> int:
        """Starts everything, calls `when_ready` once all endpoints answer, and blocks until it is asked to
        stop. Returns the exit code.

        Raises:
            StartupError: another platform runs on this state folder.
        """
        state = self.plan.state_dir
        for name in ("run", "logs", "chain"):
            private.folder(state / name)
        lock = _lock(state / "run" / "up.lock")
        _remove_addresses(state)  # left by a platform that was killed
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
            # Ctrl-C in the terminal reaches this process only, which stops the programs in order. If it is killed, they stop too.
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
            supervisor_socket(self.plan.state_dir).unlink(missing_ok=True)
            _remove_addresses(state)  # a program that had to be killed could not remove its own
            lock.close()

    def _watch(self, process: subprocess.Popen[str], when_ready: Callable[[], None]) -> int:
        ready, begun, reports = False, time.monotonic(), 0
        while not self.stopping.wait(0.25):
            if process.poll() is not None:
                raise StartupError(
                    f"the supervisor exited with {process.returncode}: see {self.plan.state_dir}/logs/platform.log"
                )
            if ready:
                self._restart_given_up()
                continue
            self._refuse_fatal()
            missing = pending_endpoints(self.plan)
            waited_s = time.monotonic() - begun
            if not missing:
                ready = True
                addresses = json.dumps(endpoints_of(self.plan))
                write_whole(self.plan.state_dir / "run" / "platform.json", addresses)
                when_ready()
            elif waited_s > START_S:
                raise StartupError(
                    f"not ready after {START_S:.0f} s: {', '.join(missing)}; see {self.plan.state_dir}/logs/platform.log"
                )
            elif waited_s > (reports + 1) * REPORT_EVERY_S:
                reports += 1
                message = f"waiting for {', '.join(missing)} ({waited_s:.0f} s)"
                self.view.show(json.dumps({"service": "up", "message": message}))
        return 0

    def _refuse_fatal(self) -> None:
        """Stops waiting for a program that exits at every start."""
        try:
            processes = processes_of(supervisor_socket(self.plan.state_dir))
        except (OSError, xmlrpc.client.Error):
            return
        dead = [str(p["name"]) for p in processes if p["statename"] == "FATAL"]
        if dead:
            last = "; ".join(f"{name}: {self.view.last_line(name)}" for name in dead)
            raise StartupError(f"cannot start {last}")

    def _restart_given_up(self) -> None:
        """Starts what supervisord has given up. A platform that was ready is configured correctly: something that a program
        needs, a database for example, was unreachable for longer than supervisord tries."""
        if time.monotonic() < self._restart_at:
            return
        self._restart_at = time.monotonic() + RESTART_EVERY_S
        try:
            for process in processes_of(supervisor_socket(self.plan.state_dir)):
                if process["statename"] == "FATAL":
                    name = f"{process['group']}:{process['name']}"
                    self.view.show(
                        json.dumps({"service": "up", "message": f"starting {process['name']} again"})
                    )
                    supervisor_of(supervisor_socket(self.plan.state_dir)).startProcess(name, False)
        except (OSError, xmlrpc.client.Error):
            return  # tried again

    def _read(self, stream: IO[str]) -> None:
        with closing(platform_log(self.plan.state_dir)) as log:
            for line in iter(lambda: stream.readline(LOG_LINE), ""):
                log.emit(logging.makeLogRecord({"msg": line.rstrip("\n")}))
                self.view.show(line.rstrip("\n"))


def platform_log(state_dir: Path) -> logging.Handler:
    """Returns the log of all programs: one file of at most LOG_BYTES, and LOG_BACKUPS older ones, .1 the newest."""
    path = private.file(state_dir / "logs" / "platform.log")
    log = RotatingFileHandler(
        path, maxBytes=LOG_BYTES, backupCount=LOG_BACKUPS, encoding="utf-8", errors="replace"
    )
    log.setFormatter(logging.Formatter("%(message)s"))
    return log


def _write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read: settings may hold a database's password."""
    private.file(path).write_text(text)


def processes_of(socket: Path) -> list[dict[str, Any]]:
    """Returns what supervisord says of its programs: name, statename, pid. Raises OSError when it does not answer."""
    return list(supervisor_of(socket).getAllProcessInfo())


def supervisor_of(socket: Path) -> Any:
    """Returns supervisord's interface (supervisord.org, XML-RPC API). Its methods raise OSError, xmlrpc.client.Error."""
    proxy = xmlrpc.client.ServerProxy(
        "http://127.0.0.1", transport=SupervisorTransport(None, None, f"unix://{socket}")
    )
    return proxy.supervisor


def _lock(path: Path) -> IO[str]:
    """Locks a state folder for one platform. Raises StartupError when another one has it."""
    handle = private.file(path).open("a+")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StartupError(
            f"a platform already runs on {path.parent.parent}: stop it, or give --state-dir another folder"
        ) from None
    return handle


def _die_with_parent() -> None:
    """Linux: asks for SIGTERM when the parent dies, so that kill -9 of `openledger up` leaves no process behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _end(process: subprocess.Popen[str]) -> None:
    """Stops supervisord and with it every program; kills what does not stop in time."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=STOP_S)


def _remove_addresses(state_dir: Path) -> None:
    for name in (*(service.name for service in services.ALL), "platform"):
        (state_dir / "run" / f"{name}.json").unlink(missing_ok=True)


def pending_endpoints(plan: Plan) -> list[str]:
    """Returns the programs whose endpoint does not answer yet; none when the platform is ready."""
    missing = [] if listens(plan.ports.anvil) else ["anvil"]
    if not answers(plan.ray_address):
        missing.append("ray")
    for service in services.ALL:
        written = (plan.state_dir / "run" / f"{service}.json").exists()
        if not written or not serving(f"127.0.0.1:{plan.ports.grpc[service.name]}"):
            missing.append(service.name)
    return missing


def endpoints_of(plan: Plan) -> dict[str, str]:
    """Returns every address, by name."""
    found = {name: f"127.0.0.1:{port}" for name, port in plan.ports.grpc.items()}
    found |= {
        service.http: f"http://127.0.0.1:{plan.ports.http[service.name]}/v1"
        for service in services.ALL
        if service.http
    }
    found |= {"chain": plan.rpc, "ray": plan.ray_address}
    found |= {
        f"{name}/metrics": f"http://127.0.0.1:{port}/metrics" for name, port in plan.ports.metrics.items()
    }
    return found


def readiness_line(plan: Plan) -> str:
    """Returns every address in one line, for people and scripts."""
    return json.dumps({"event": "ready", "service": "platform", "endpoints": endpoints_of(plan)})
