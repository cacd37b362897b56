"""What imports leave is not collected."""

from __future__ import annotations

import gc

import pytest

from servicekit import collector


def test_nothing_is_collected_within_and_what_stays_is_not_looked_through_again() -> None:
    with collector.paused():
        assert not gc.isenabled()
        kept = [[number] for number in range(10)]
    assert gc.isenabled()
    assert gc.get_freeze_count() > len(kept)
    assert not any(found is kept for found in gc.get_objects())


def test_an_import_that_fails_leaves_the_collector_on() -> None:
    with pytest.raises(ImportError), collector.paused():
        raise ImportError("no such module")
    assert gc.isenabled()
