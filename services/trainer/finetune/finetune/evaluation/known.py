"""Outcomes that exist already: a base is scored once for all its adapters, and a killed job loses one part of a suite.

A small file for each combination of suite family, model and compute type says which object holds the outcomes: of a
beginning of the family's fixed order, so that a larger evaluation scores what is new. The object is what counts: a file
whose object is gone is as good as no file, and the folder may be emptied at any time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from evalstats.outcomes import InvalidOutcomes, ItemOutcome, Outcomes
from identity.digest import canonical_json, digest_hex, digest_json
from servicekit import private
from servicekit.errors import CorruptObject, NotFound
from servicekit.files import write_whole
from servicekit.objects import ObjectStore

SCORING_VERSION = 3
"""Raised when scoring changes what it computes, so that outcomes of old code are not used."""


@dataclass(frozen=True, kw_only=True)
class OutcomesKey:
    """What outcomes are outcomes of."""

    family: str
    """`Suite.family`: the suite in its order, whatever the number of items."""
    base: str
    adapter: str | None
    compute: str


class KnownOutcomes:
    """Outcomes by what they are outcomes of; safe for several jobs at once: the last that writes is read."""

    def __init__(self, folder: Path, store: ObjectStore, versions: dict[str, str]) -> None:
        """`versions`: packages whose change may change a log-likelihood."""
        private.folder(folder)
        self._folder = folder
        self._store = store
        self._versions = versions

    def get(self, key: OutcomesKey) -> tuple[ItemOutcome, ...]:
        """Returns outcomes of the family's first items; none where nothing is known, or cannot be read any more."""
        try:
            digest = self._path(key).read_text().strip()
            return Outcomes.from_json(json.loads(self._store.get_bytes(digest))).items
        except (FileNotFoundError, NotFound, CorruptObject, InvalidOutcomes, ValueError):
            return ()

    def put(self, key: OutcomesKey, items: tuple[ItemOutcome, ...]) -> None:
        """Stores outcomes of the family's first items, then the note that they exist."""
        outcomes = Outcomes(
            suite_digest=key.family,
            base_digest=key.base,
            adapter_digest=key.adapter,
            compute=key.compute,
            items=items,
        )
        write_whole(self._path(key), self._store.put_bytes(canonical_json(outcomes.to_json())))

    def _path(self, key: OutcomesKey) -> Path:
        name = {
            "family": key.family,
            "base": key.base,
            "adapter": key.adapter,
            "compute": key.compute,
            "scoring": SCORING_VERSION,
            "versions": self._versions,
        }
        return self._folder / digest_hex(digest_json(name))
