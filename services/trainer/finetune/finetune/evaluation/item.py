"""What a model is asked: an item, the digest of many, and the first of them in their fixed order."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from evalstats.order import item_order
from evalstats.verification import ITEMS_SCHEMA
from identity.digest import canonical_json


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question with its options, or one text (an empty prompt and a single option)."""

    id: str
    cluster: str
    """Items that are not independent of each other (one video, one article, near-duplicates) share it."""
    prompt: str
    options: tuple[str, ...]
    gold: int
    """Index of the right option."""

    def __post_init__(self) -> None:
        if not self.options or not 0 <= self.gold < len(self.options) or not all(self.options):
            raise ValueError(
                f"item {self.id}: {len(self.options)} options, gold {self.gold}; none may be empty"
            )
        # Canonical JSON is in normalisation form C; so are the texts that are scored, or a verifier that reads
        # the stored items would count other bytes.
        for name in ("id", "cluster", "prompt"):
            object.__setattr__(self, name, unicodedata.normalize("NFC", getattr(self, name)))
        normal = tuple(unicodedata.normalize("NFC", option) for option in self.options)
        object.__setattr__(self, "options", normal)

    @property
    def text(self) -> str:
        """Prompt and right option as one text: what must not be in training data."""
        return self.prompt + self.options[self.gold]


def items_json(items: Sequence[Item]) -> bytes:
    """The items object, canonical JSON, whose digest names the items of a suite."""
    return canonical_json({"schema": ITEMS_SCHEMA, "items": [asdict(item) for item in items]})


def in_order(items: Sequence[Item], seed: int) -> tuple[Item, ...]:
    """Returns the items in the suite's fixed order, see `evalstats.order`.

    A larger evaluation extends a smaller one: both ask the first of them, on any machine and whatever order the source has.
    """
    order = item_order([(item.id, item.cluster) for item in items], seed)
    return tuple(items[place] for place in order)
