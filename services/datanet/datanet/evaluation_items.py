"""Sets of evaluation items, by the digest of their object. Loaded once and kept: an object never changes."""

from __future__ import annotations

import threading

from cachetools import LRUCache

from datanet.contamination import EvaluationItems, read_items
from datanet.definition import Datanet
from datanet.quality import Rules
from servicekit.objects import ObjectStore


class EvaluationItemsCache:
    """The most recently used sets. A set of 20,000 items has about 1.5 million word runs: 200 MB."""

    def __init__(self, objects: ObjectStore, size: int = 4) -> None:
        self._objects = objects
        self._lock = threading.Lock()
        self._cached: LRUCache[str, EvaluationItems] = LRUCache(maxsize=size)

    def get(self, digest: str) -> EvaluationItems:
        """Returns the set with this digest.

        Raises NotFound, CorruptObject, or InvalidArgument if the object does not contain evaluation items.
        """
        with self._lock:  # held while loading: two threads must not load 200 MB twice
            if digest not in self._cached:
                self._cached[digest] = EvaluationItems(read_items(self._objects.get_bytes(digest)))
            return self._cached[digest]

    def rules(self, datanet: Datanet) -> Rules:
        """Returns a Datanet's rules with its evaluation items."""
        policy = datanet.policy
        items = self.get(policy.gate_items_digest) if policy.contamination_check else None
        return Rules(datanet.schema, policy, items)
