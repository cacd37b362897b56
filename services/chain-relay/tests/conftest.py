"""What the relay's tests share: answers to settle, a database, a chain with the contracts on it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests" / "support"))

from anvil import Anvil


@pytest.fixture
def anvil() -> Iterator[Anvil]:
    with Anvil() as node:
        yield node
