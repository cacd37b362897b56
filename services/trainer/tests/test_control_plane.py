"""The control plane needs neither torch nor Ray: not by what it declares, not by what it imports."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HEAVY = {"torch", "transformers", "peft", "ray", "safetensors", "scipy", "openledger-finetune"}
LIGHT_START = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "peft", "ray", "safetensors", "scipy", "finetune"}:
            raise ModuleNotFoundError(f"{name} is not part of the control plane", name=name)

sys.meta_path.insert(0, Blocked())
import trainer.service
print(sorted(name for name in sys.modules if name.partition(".")[0] == "modelkit"))
"""


def closure(project: str) -> set[str]:
    """Returns the names of a distribution's dependencies, and of theirs, as their metadata declares them."""
    seen: set[tuple[str, str]] = set()
    waiting = [(project, "")]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            lines = requires(name) or []
        except PackageNotFoundError:  # left out by overrides.txt: named, and needs nothing
            continue
        for line in lines:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                found = canonicalize_name(needed.name)
                waiting += [(found, each) for each in ("", *needed.extras)]
    return {name for name, _ in seen}


def test_its_declared_dependencies_hold_no_torch_and_no_ray() -> None:
    assert closure("openledger-trainer") & HEAVY == set()
    assert {"torch", "ray"} <= closure("openledger-finetune")


def test_it_starts_where_torch_and_ray_are_not_installed() -> None:
    started = subprocess.run(
        [sys.executable, "-c", LIGHT_START], capture_output=True, text=True, timeout=120, check=False
    )
    assert started.returncode == 0, started.stderr
    assert "modelkit.weights" not in started.stdout
