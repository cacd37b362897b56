"""Starts processes that may die: a fork for each run of a service, from a parent that has imported everything.

    python -m openledger_testing.crash.fork_server SCENARIO

reads one JSON request a line and answers each by a line with the exit code. The parent starts no thread and opens no gRPC
or database, so that its children begin as a fresh process would; importing torch or SQLAlchemy again for each kill would
take most of the time.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from servicekit import collector, crash

LONGEST_RUN_S = 240


def main() -> None:
    with collector.paused():  # and the children share its pages: their collections write nothing there
        scenario = import_module(f"openledger_testing.crash.scenarios.{sys.argv[1]}")
    outside = getattr(scenario, "outside", None)  # what does not die with the service: a chain
    if outside is not None:
        outside()
    answers = os.fdopen(os.dup(1), "w")
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(scenario, json.loads(line))), file=answers, flush=True)


def _answer(scenario: Any, request: dict[str, Any]) -> int:
    folder = Path(request["folder"])
    if request["do"] == "copy":
        shutil.copytree(request["template"], folder)
        if hasattr(scenario, "reset"):
            scenario.reset(folder)
        return 0
    made = crash.Plan(
        Path(request["record"]) if request.get("record") else None,
        request.get("at", ""),
        request.get("hit", 1),
    )
    return _fork(lambda: getattr(scenario, request["do"])(folder), made, folder)


def _fork(run: Callable[[], None], made: crash.Plan, folder: Path) -> int:
    """Returns the exit code of a run, as a shell reports it."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)
    code = 1
    try:
        log = os.open(folder / "process.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        signal.alarm(LONGEST_RUN_S)  # a run that hangs is ended
        crash.plan(made)
        run()
        code = 0
    except BaseException:  # noqa: BLE001 - printed; the exit code reports it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
