"""The finished steps, so that a run that was stopped continues instead of starting again."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servicekit.database import ulid


@dataclass
class Journal:
    """One JSON file: the run's id, and each finished step's result."""

    path: Path
    run: str = ""
    scale: str = ""
    results: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, scale: str) -> Journal:
        """Reads the journal, or begins one."""
        if path.exists():
            found = json.loads(path.read_text())
            return cls(path, found["run"], found["scale"], found["results"])
        journal = cls(path, ulid(), scale)
        journal._write()
        return journal

    def finished(self, step: str) -> bool:
        """Whether a step's result is kept."""
        return step in self.results

    def finish(self, step: str, result: dict[str, Any]) -> None:
        """Keeps a step's result. Durable when it returns."""
        self.results[step] = result
        self._write()

    def request_id(self, purpose: str) -> str:
        """The same id for the same purpose in the same run: a step that runs again after a kill doubles nothing."""
        return f"{self.run}-{purpose}"[:64]

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"run": self.run, "scale": self.scale, "results": self.results}, indent=1)
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)
