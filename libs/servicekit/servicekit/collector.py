"""Python's garbage collector beside imports.

A service's imports make some hundred thousand objects, and all of them stay. To look through them again
and again took about a tenth of the CPU of a start; and each full collection afterwards does it once more.
"""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """Nothing is collected within; what exists at the end is left out of all later collections, until the process ends."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.unfreeze)  # some libraries report what is not collected at the end as leaked
