"""`python -m threat_intel demo`: the main job on real data."""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import sys
import time
from pathlib import Path

from openledger_client.errors import OpenLedgerError
from servicekit.errors import DomainError, StartupError
from servicekit.telemetry import traces as telemetry
from threat_intel.interruption import Interruption
from threat_intel.journal import Journal
from threat_intel.platform import Platform
from threat_intel.run import Run
from threat_intel.scale import FULL, SMALL, Scale
from threat_intel.story import STEPS, execute_all


def main() -> int:
    """Parses arguments, runs the demo, and prints in one line how it ended."""
    parser = argparse.ArgumentParser(prog="python -m threat_intel", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser(
        "demo", help="contribute, fine-tune, evaluate, answer, attribute, settle, verify"
    )
    demo.add_argument(
        "--small", action="store_true", help="a tiny random-weight model: the same steps in under two minutes"
    )
    demo.add_argument(
        "--fresh", action="store_true", help="from the beginning, not from the last finished step"
    )
    demo.add_argument(
        "--out", type=Path, default=None, help="folder for everything (default out/demo or out/demo-small)"
    )
    demo.add_argument("--event-log", default="", help="kafka://host:port instead of the embedded log")
    arguments = parser.parse_args()
    # Every signal that asks for an end stops the platform too; the journal keeps what is done.
    interruption = Interruption()
    interruption.listen()
    telemetry.configure_client("threat-intel", os.environ.get("OPENLEDGER_OTLP_ENDPOINT"))
    try:
        return _demo(arguments, interruption)
    except KeyboardInterrupt:
        print("\nstopped; run it again to continue after the last finished step", file=sys.stderr)
        return 130
    except OpenLedgerError as error:
        print(f"demo: {error.code.name}: {error}", file=sys.stderr)
    except (DomainError, StartupError) as error:
        print(f"demo: {error}", file=sys.stderr)
    except OSError as error:
        print(f"demo: {error.strerror or error}: {error.filename or ''}", file=sys.stderr)
    return 1


def _demo(arguments: argparse.Namespace, interruption: Interruption) -> int:
    scale = SMALL if arguments.small else FULL
    out: Path = (arguments.out or Path("out") / ("demo-small" if arguments.small else "demo")).resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    with (out.parent / f".{out.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartupError(f"another demo runs in {out}: stop it, or give --out another folder") from None
        if arguments.fresh or _is_over(out, scale.name):
            shutil.rmtree(out, ignore_errors=True)
        journal = Journal.open(out / "journal.json", scale.name)
        return _execute(out, arguments.event_log, journal, scale, interruption)


def _execute(out: Path, event_log: str, journal: Journal, scale: Scale, interruption: Interruption) -> int:
    begun = time.monotonic()
    print(f"OpenLedger demo ({scale.name}), run {journal.run}: starting the platform", flush=True)
    settings = {"OPENLEDGER_TRAINER_MAX_RUNNING_JOBS": str(scale.jobs_at_once)}
    with Platform(
        state_dir=out / "state", base_model=scale.base_model, event_log=event_log, settings=settings
    ) as platform:
        run = Run(folder=out, scale=scale, journal=journal, platform=platform, interruption=interruption)
        run.say(
            f"ready after {time.monotonic() - begun:.0f} s; "
            + ", ".join(
                f"{name} {address}" for name, address in platform.endpoints.items() if "metrics" not in name
            )
        )
        try:
            execute_all(run)
        finally:
            run.close()
    print(f"\nfinished in {(time.monotonic() - begun) / 60:.1f} minutes")
    print(f"report  {_short(out / 'report.html')}\nfigures {_short(out / 'story.json')}")
    return 0


def _is_over(out: Path, scale: str) -> bool:
    """Whether the folder holds a finished run, or one of another scale: then a new run begins."""
    if not (out / "journal.json").exists():
        return False
    journal = Journal.open(out / "journal.json", scale)
    return journal.scale != scale or all(journal.finished(name) for name, _, _ in STEPS)


def _short(path: Path) -> str:
    return os.path.relpath(path)


if __name__ == "__main__":
    sys.exit(main())
