"""The platform of the demo: `openledger up` as a child process that ends with this one."""

from __future__ import annotations

import ctypes
import json
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servicekit.errors import StartupError

READY_S = 660.0
REPORT_EVERY_S = 30
STOP_S = 75.0


@dataclass(kw_only=True)
class Platform:
    """One running platform. Use as a context manager."""

    state_dir: Path
    base_model: str
    event_log: str = ""
    port_base: int = 0
    """First of the ports; 0 picks free ones."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Environment of the services."""
    endpoints: dict[str, str] = field(default_factory=dict)

    @property
    def gate_items(self) -> Path:
        """Evaluation items that contributed records must not contain, as `openledger up` exports them."""
        return self.state_dir / "gate-items.jsonl"

    def __enter__(self) -> Platform:
        command = [
            sys.executable,
            "-m",
            "openledger_cli",
            "--state-dir",
            str(self.state_dir),
            "--json",
            "up",
            "--quiet",
            "--port-base",
            str(self.port_base),
            "--base-model",
            self.base_model,
        ]
        if self.event_log:
            command += ["--event-log", self.event_log]
        for name, value in self.settings.items():
            command += ["--set", f"{name}={value}"]
        self._tail: deque[str] = deque(maxlen=20)
        self._ready = threading.Event()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self._await_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _await_ready(self) -> None:
        for half_seconds in range(1, int(READY_S / 0.5)):
            if self._ready.wait(0.5):
                return
            if half_seconds % (2 * REPORT_EVERY_S) == 0:
                print(
                    f"  starting for {half_seconds // 2} s; on a busy machine it may take {READY_S / 60:.0f} minutes",
                    flush=True,
                )
            if self._process.poll() is not None:
                raise StartupError(f"the platform did not start: {' | '.join(self._tail)}")
        raise StartupError(
            f"the platform is not ready after {READY_S:.0f} s; see {self.state_dir}/logs/platform.log"
        )

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._tail.append(line.rstrip())
            entry = _parse(line)
            if entry.get("event") == "ready" and entry.get("service") == "platform":
                self.endpoints = dict(entry["endpoints"])
                self._ready.set()

    def _stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout=STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(timeout=STOP_S)


def _die_with_parent() -> None:
    """Linux: SIGTERM to the platform when this process ends, however it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _parse(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
