"""One sort term of an order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sort:
    """`source` (a column, or a function of an item), ascending or descending. Absent values count as the smallest.

    `nullable` says whether there are absent values; without them the database can read the order from an index.
    """

    source: Any
    descending: bool
    nullable: bool
