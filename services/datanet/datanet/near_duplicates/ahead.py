"""Computes the next result in a thread while the last one is used: numpy works without the interpreter's lock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ahead(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yields `function(item)` for each item in order; at most two results and two items are in memory."""
    with ThreadPoolExecutor(1, "near-duplicates") as executor:
        computing: Future[R] | None = None
        for item in items:
            following = executor.submit(function, item)
            if computing is not None:
                yield computing.result()  # waits: for a computation of this process
            computing = following
        if computing is not None:
            yield computing.result()  # waits: as above
