"""Runs inside a Python that has nemo-evaluator: its gate on outcomes that bench/gate_power.py drew.

    PYTHON bench/gate_nel.py CASES.json FOLDER

Imports nothing of this repository. Prints one line of JSON: the package's version, its verdict on every case, and the exit
codes of the command `nel gate` on one case of each verdict.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nemo_evaluator.config import load_gate_policy
from nemo_evaluator.engine.gate import gate_runs

NAME = "suite"


def write(folder: Path, rewards: list[float]) -> None:
    """One evaluation's results in the files that nel reads."""
    folder.mkdir(parents=True, exist_ok=True)
    scores = {"mean_reward": {"value": sum(rewards) / len(rewards)}}
    (folder / f"eval-{NAME}.json").write_text(json.dumps({"benchmark": {"name": NAME, "scores": scores}}))
    lines = [
        json.dumps({"problem_idx": i, "repeat": 0, "reward": reward}) for i, reward in enumerate(rewards)
    ]
    (folder / "results.jsonl").write_text("\n".join(lines))


def main(source: Path, folder: Path) -> None:
    """Judges every case."""
    given = json.loads(source.read_text())
    policy_file = folder / "policy.yaml"
    policy_file.write_text(
        f"version: 1\nbenchmarks:\n  {NAME}:\n    tier: critical\n    metric: mean_reward\n    max_drop: {given['margin']}\n"
    )
    policy = load_gate_policy(policy_file)
    verdicts: list[str] = []
    shown: dict[str, tuple[Path, Path]] = {}
    for number, gains in enumerate(given["cases"]):
        base, tuned = folder / f"{number}-base", folder / f"{number}-tuned"
        write(base, [1.0 if gain < 0 else 0.0 for gain in gains])
        write(tuned, [1.0 if gain > 0 else 0.0 for gain in gains])
        verdicts.append(gate_runs(base, tuned, policy).verdict)
        shown.setdefault(verdicts[-1], (base, tuned))
    codes = {}
    for verdict, (base, tuned) in shown.items():
        command = "from nemo_evaluator.cli.gate import gate_cmd; gate_cmd()"
        arguments = [
            sys.executable,
            "-c",
            command,
            str(base),
            str(tuned),
            "--policy",
            str(policy_file),
            "--no-report",
        ]
        codes[verdict] = subprocess.run(arguments, capture_output=True, check=False).returncode
    try:
        installed = version("nemo-evaluator")
    except PackageNotFoundError:
        installed = "from source"
    print(json.dumps({"version": installed, "verdicts": verdicts, "exit_codes": codes}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
