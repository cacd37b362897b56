"""What one snapshot of a run withholds is withheld from the run."""

from __future__ import annotations

import random

import pytest

from identity.digest import digest_json
from identity.snapshot import SnapshotLine
from modelkit.splits import CONTROL, HELD_OUT, TRAIN, JointSplits


def digest(number: int) -> str:
    return digest_json({"text": str(number)})


def line(number: int, split: str, cluster: int | None = None) -> SnapshotLine:
    return SnapshotLine(
        record_digest=digest(number),
        cluster=digest(number if cluster is None else cluster),
        split=split,
        contributor="datanets/d/contributors/c",
        record={"text": str(number)},
    )


@pytest.mark.parametrize("withheld", [HELD_OUT, CONTROL])
def test_a_record_that_any_snapshot_withholds_is_not_trained_on(withheld: str) -> None:
    splits = JointSplits([[line(1, TRAIN), line(2, TRAIN)], [line(1, withheld), line(2, TRAIN)]])
    assert [splits.trainable(digest(number)) for number in (1, 2)] == [False, True]
    assert splits.askable(digest(1)) == (withheld == HELD_OUT)


def test_neither_is_a_record_of_the_same_cluster() -> None:
    """2 joined the cluster of 1 in the second snapshot, where it is held out; 3 is near 2 in the third."""
    splits = JointSplits(
        [
            [line(1, TRAIN), line(4, TRAIN)],
            [line(1, HELD_OUT), line(2, HELD_OUT, cluster=1)],
            [line(2, TRAIN), line(3, TRAIN, cluster=2)],
        ]
    )
    assert [splits.trainable(digest(number)) for number in (1, 2, 3, 4)] == [False, False, False, True]
    assert len({splits.cluster(digest(number)) for number in (1, 2, 3)}) == 1


def test_a_record_held_out_beside_a_control_of_another_snapshot_is_not_asked() -> None:
    splits = JointSplits([[line(1, HELD_OUT), line(2, HELD_OUT, cluster=1)], [line(2, CONTROL)]])
    assert not splits.askable(digest(1))
    assert not splits.trainable(digest(1))


def test_one_snapshot_keeps_its_clusters_names() -> None:
    splits = JointSplits([[line(1, TRAIN), line(2, TRAIN, cluster=1), line(3, HELD_OUT)]])
    assert [splits.cluster(digest(number)) for number in (1, 2, 3)] == [digest(1), digest(1), digest(3)]


def test_the_order_of_snapshots_and_lines_changes_nothing() -> None:
    chance = random.Random(1)
    snapshots = [
        [
            line(number, chance.choice((TRAIN, HELD_OUT, CONTROL)), chance.randrange(60))
            for number in range(60)
        ]
        for _ in range(2)
    ]
    straight, reverse = JointSplits(snapshots), JointSplits([lines[::-1] for lines in snapshots[::-1]])
    for number in range(60):
        one = digest(number)
        assert straight.cluster(one) == reverse.cluster(one)
        assert straight.trainable(one) == reverse.trainable(one)
        assert straight.askable(one) == reverse.askable(one)
