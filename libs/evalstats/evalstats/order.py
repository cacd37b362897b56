"""The one order in which a suite's items are asked: fixed by a seed, so that a larger evaluation extends a smaller one."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256


def item_order(items: Sequence[tuple[str, str]], seed: int) -> list[int]:
    """Returns the positions of `items`, each (id, cluster), in the order in which they are asked.

    Rounds: the first item of every cluster, then the second of those that have two, and so on. Within a round clusters
    stand by sha256 of "seed:cluster", and within a cluster items by sha256 of "seed:id". So the order depends on
    neither the source's order nor the machine, the items of the first round are independent of each other, and any
    beginning of the order is in order by itself.
    """
    members: dict[str, list[int]] = {}
    for position, (_, cluster) in enumerate(items):
        members.setdefault(cluster, []).append(position)
    keyed = []
    for cluster, positions in members.items():
        place = _key(seed, cluster)
        for number, position in enumerate(sorted(positions, key=lambda p: _key(seed, items[p][0]))):
            keyed.append((number, place, position))
    return [position for _, _, position in sorted(keyed)]


def first_out_of_order(items: Sequence[tuple[str, str]], seed: int) -> int | None:
    """Returns the first position at which another item should stand; None where all are in order."""
    wrong = (here for here, due in enumerate(item_order(items, seed)) if here != due)
    return next(wrong, None)


def _key(seed: int, text: str) -> bytes:
    return sha256(f"{seed}:{text}".encode()).digest()
