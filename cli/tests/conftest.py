"""What tests of the CLI share."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture
def heeds_ctrl_c() -> Iterator[None]:
    """Lets children heed SIGINT. Where the tests run in the background, a shell has them ignore it, and they pass that on."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
