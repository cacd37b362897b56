"""Outcomes that exist already: a base is scored once for all its adapters, and a killed job loses one suite at most.

A small file for each combination of suite, model and compute type says which object holds the outcomes. The
object is what counts: a file whose object is gone is as good as no file, and the folder may be emptied at any
time.
"""

from __future__ import annotations

import json
from pathlib import Path

from evalstats.outcomes import InvalidOutcomes, Outcomes
from identity.digest import canonical_json, digest_hex, digest_json
from servicekit.errors import CorruptObject, NotFound
from servicekit.files import write_whole
from servicekit.objects import ObjectStore

SCORING_VERSION = 1
"""Raised when scoring changes what it computes, so that outcomes of old code are not used."""


class KnownOutcomes:
    """Outcomes by what they are outcomes of; safe for several jobs at once (the last of equals wins)."""

    def __init__(self, folder: Path, store: ObjectStore, versions: dict[str, str]) -> None:
        """`versions`: packages whose change may change a log-likelihood."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._store = store
        self._versions = versions

    def get(self, suite: str, base: str, adapter: str | None, compute: str) -> Outcomes | None:
        """None where nothing is known, or what was known cannot be read any more."""
        try:
            digest = self._path(suite, base, adapter, compute).read_text().strip()
            return Outcomes.from_json(json.loads(self._store.get_bytes(digest)))
        except (FileNotFoundError, NotFound, CorruptObject, InvalidOutcomes, ValueError):
            return None

    def put(self, outcomes: Outcomes) -> str:
        """Stores outcomes, then the note that they exist; returns the object's digest."""
        digest = self._store.put_bytes(canonical_json(outcomes.to_json()))
        path = self._path(
            outcomes.suite_digest, outcomes.base_digest, outcomes.adapter_digest, outcomes.compute
        )
        write_whole(path, digest)
        return digest

    def _path(self, suite: str, base: str, adapter: str | None, compute: str) -> Path:
        key = {
            "suite": suite,
            "base": base,
            "adapter": adapter,
            "compute": compute,
            "scoring": SCORING_VERSION,
            "versions": self._versions,
        }
        return self._folder / digest_hex(digest_json(key))
