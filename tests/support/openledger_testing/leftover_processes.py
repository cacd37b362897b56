"""Processes that a demo run must not leave behind."""

from __future__ import annotations

import os
from pathlib import Path

import psutil


def processes_of(folder: Path) -> list[str]:
    """Returns the command lines of running processes that name this folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ", "pid", "status"]):
        known = [
            *(process.info["cmdline"] or []),
            (process.info["environ"] or {}).get("OPENLEDGER_STATE_DIR", ""),
        ]
        own = process.info["pid"] == os.getpid() or process.info["status"] == psutil.STATUS_ZOMBIE
        if not own and any(str(folder) in word for word in known):
            found.append(" ".join(process.info["cmdline"] or [])[:200])
    return found
